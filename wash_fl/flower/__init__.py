"""Flower around the protocol: the strategy, a client's handlers, and what their messages hold."""
