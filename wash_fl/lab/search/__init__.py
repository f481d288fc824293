"""A whole fleet in one process, and everything that can go wrong in it, under the eyes of an oracle.

The escrow, the roster, the journal (a SQLite file), the packets and the members' logic are the real ones; the
network, the members' disks and the moments at which processes die are models that do as they are told.
"""
