"""Deployment on Flower's SuperLink and SuperNodes: credentials, and a whole fleet on one machine."""
