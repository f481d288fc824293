"""What a person reads of a run: its progress, and a page on it with its figures."""
