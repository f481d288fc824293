"""The Flower ServerApp, and what a server needs."""
