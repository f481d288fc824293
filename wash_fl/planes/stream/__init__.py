"""The stream plane: slices over gRPC every few optimizer steps, inside one long Flower message."""
