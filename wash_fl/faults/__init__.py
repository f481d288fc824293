"""Faults on purpose, by member and exchange: plans of them, and the points at which processes die."""
