"""gRPC around the protocol: members exchange over streams while they train."""
