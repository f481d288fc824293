"""How slices travel: the round plane, inside Flower's own messages."""
