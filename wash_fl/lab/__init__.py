"""The laboratory: what it costs, what it gains, and the search for faults. Nothing outside imports it."""
