"""The algorithm, in numpy alone: what is exchanged, when, among whom, and as which bytes."""
