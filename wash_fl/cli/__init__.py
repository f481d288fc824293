"""The command line: thin; a file for each command, and the options from :mod:`wash_fl.config`."""
