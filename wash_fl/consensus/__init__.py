"""From members to one model: averaging, BatchNorm, evaluation."""
