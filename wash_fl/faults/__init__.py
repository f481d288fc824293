"""Faults on purpose, by member and exchange: to messages (grid) and to processes (points)."""
