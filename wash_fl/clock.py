"""The time that is waited by; tests bring a clock of their own that does not make them wait."""

import time


class Clock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return seconds since some moment in the past; never runs backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)
