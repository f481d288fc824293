"""WASH for Flower: train an ensemble on a fleet of edge devices, ship it as one small model."""

__version__ = "0.1.0"
