"""Measurements that a user can repeat: each returns one flat mapping of figures."""
