"""Whether a task can become a right model, found out in seconds and before anything is started."""
