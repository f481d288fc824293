"""Flower's processes, on one machine and on a fleet: started, followed, stopped; and their credentials."""
