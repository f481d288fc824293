"""The job on a server, and the folder of its run: written, read back, and judged."""
