"""Evidence: the in-process trainer, and the rivals beside it."""
