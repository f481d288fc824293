"""``wash-fl`` and ``python -m wash_fl``: the command line, also for who presses Ctrl-C while it is loaded."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""As in :mod:`wash_fl.errors`, which takes a while to load."""


def main() -> None:
    """Load the command line and run it; Ctrl-C before it is there ends this process without a word."""
    # Nothing is begun yet, and what is half imported makes of KeyboardInterrupt whatever it likes.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from wash_fl.cli.main import main as run

    try:
        signal.signal(signal.SIGINT, before)
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
