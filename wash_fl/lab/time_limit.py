"""A limit to how long something may take that cannot be asked to stop otherwise."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeUp(KeyboardInterrupt):
    """The time is over; whoever stops what it has started on Ctrl-C does so now."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeUp` in the block if it takes longer. In a program's main thread only.

    Parameters
    ----------
    seconds : float
        How long it may take.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeUp(f"after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
