"""The operating system: being stopped by a signal, locks on files, what a program had of memory."""
