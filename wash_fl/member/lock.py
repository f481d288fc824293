"""One process at a time: a lock that the operating system lets go of when its holder dies."""

import importlib
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wash_fl.errors import StateError

# Not on Windows, where a member goes without a lock.
_fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

logger = logging.getLogger("flwr.wash_fl")

_PAUSE = 0.2


@contextmanager
def exclusive(
    path: Path,
    *,
    wait: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock on a file, which is made if it is not there; whoever holds it may remove it.

    Parameters
    ----------
    path : Path
        The lock's file; never one that holds anything.
    wait : float
        Seconds to wait for another holder.
    now, sleep : callable
        What the waiting is measured by.

    Raises
    ------
    StateError
        If another process holds it for longer, or the file cannot be made.
    """
    if _fcntl is None:
        yield
        return
    deadline = now() + wait
    announced = False
    while (descriptor := _try(path)) is None:
        if now() >= deadline:
            raise StateError(
                f"another process has been using {path.parent} for more than {wait:g} s: stop it, or give "
                "each node a partition-id and a state-dir of its own."
            )
        if not announced:
            logger.info("waiting for another process that uses %s", path.parent)
            announced = True
        sleep(_PAUSE)
    try:
        yield
    finally:
        # Closing alone would leave it to a child process that inherited the descriptor.
        _fcntl.flock(descriptor, _fcntl.LOCK_UN)
        os.close(descriptor)


def _try(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None if another has it."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last holder removed the folder between the two lines
            continue
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise _unusable(path, error) from error
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # its last holder removed it: this lock is on a file that nobody else finds


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _unusable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"{path.parent} cannot be used for a member's state ({error.strerror or error}): choose a state-dir "
        "on a local disk that this process may write to."
    )
