"""Another process that holds a lock until it is killed."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager


def hold_in_child(enter: Callable[[], AbstractContextManager[object]]) -> int:
    """Enter a context in another process, which stays in it until it is killed; return its id."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with enter():
                os.write(writing, b"held")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 4) == b"held"
    os.close(reading)
    return child


def end(child: int) -> None:
    """Kill such a process."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
