"""How long a server sleeps while it waits."""

from wash_fl.clock import Clock


class Pause:
    """Waits longer and longer while nothing happens, so that a short wait is short and a long one cheap."""

    SHORTEST, LONGEST = 0.02, 1.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = self.SHORTEST

    def reset(self) -> None:
        """Begin with short waits again: something happened."""
        self._next = self.SHORTEST

    def wait(self, until: float) -> None:
        """Sleep for a while, and not beyond ``until``, in seconds of the clock."""
        self._clock.sleep(max(0.0, min(self._next, until - self._clock.now())))
        self._next = min(2 * self._next, self.LONGEST)
