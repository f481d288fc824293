"""``python -m wash_fl``: the command line."""

from wash_fl.cli import main

main()
