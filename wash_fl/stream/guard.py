"""One coordinator for two threads: Flower's, and that of the streams."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wash_fl.protocol.coordinator import Coordinator


class Guard:
    """Lets one thread at a time use a coordinator, and none once it has failed.

    Parameters
    ----------
    coordinator : Coordinator
        With its journal, which is used nowhere else while it is guarded.
    now : callable
        Seconds on a clock that never goes back, the same for both threads.

    Attributes
    ----------
    now : callable
        That clock.
    failure : BaseException or None
        What was raised while somebody had the coordinator: a journal that cannot be written, say.
    """

    def __init__(self, coordinator: Coordinator, now: Callable[[], float]) -> None:
        self.now = now
        self.failure: BaseException | None = None
        self._coordinator = coordinator
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[Coordinator]:
        """Give the coordinator to this thread alone.

        Raises
        ------
        BaseException
            What has failed before.
        """
        with self._lock:
            if self.failure is not None:
                raise self.failure
            try:
                yield self._coordinator
            except BaseException as error:
                self.failure = error
                raise
