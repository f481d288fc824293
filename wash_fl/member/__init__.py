"""The device's side: a member of the ensemble, its training, and its state on disk."""
