"""The Flower ClientApp, and what a device needs."""
