"""Who does what when: every decision of a run's server and of its members, without I/O."""
