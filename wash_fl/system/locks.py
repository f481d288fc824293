"""One process at a time in a folder: locks that the operating system lets go of when their holder dies."""

import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from wash_fl.clock import Clock
from wash_fl.errors import RunError, WashError

# Not on Windows, where whoever asks for a lock goes without one.
_fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

PAUSE: Final = 0.2
"""Seconds from one try to the next."""

logger = logging.getLogger("flwr.wash_fl")


@contextmanager
def locked(
    path: Path,
    *,
    busy: str,
    wait: float = 0.0,
    place: str = "run-dir",
    kind: type[WashError] = RunError,
    keep: bool = False,
    clock: Clock | None = None,
) -> Iterator[None]:
    """Hold the lock on a file, which is made with its folder if it is not there.

    Parameters
    ----------
    path : Path
        The lock's file; never one that holds anything.
    busy : str
        The error's message if another process holds it.
    wait : float
        Seconds to wait for that process.
    place : str
        What the user calls the folder.
    kind : type of WashError
        Of the errors.
    keep : bool
        Whether the file stays afterwards. Its holder may remove it.
    clock : Clock
        What the waiting is measured by.

    Raises
    ------
    WashError
        If another process holds it for longer, or files cannot be made or locked there: of ``kind``.
    """
    if _fcntl is None:
        yield
        return
    clock = clock or Clock()
    deadline = clock.now() + wait
    announced = False
    try:
        while (descriptor := _try(path)) is None:
            if clock.now() >= deadline:
                raise kind(busy)
            if not announced:
                logger.info("waiting for another process that uses %s", path.parent)
                announced = True
            clock.sleep(PAUSE)
    except OSError as error:
        # A lock that is made up where there are none would outlive its holder, or keep nobody out.
        raise kind(
            f"cannot lock {path.parent} ({error.strerror or error}): choose a {place} on a local disk with "
            "file locks that this process may write to."
        ) from error
    try:
        yield
    finally:
        _let_go(descriptor, path, keep=keep)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock on a file."""
    if _fcntl is None or not path.exists():
        return False
    try:
        descriptor = _try(path)
    except OSError:
        return False
    if descriptor is not None:
        _let_go(descriptor, path, keep=False)
    return descriptor is None


def _try(path: Path) -> int | None:
    """Return a descriptor that holds the lock; None if another has it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last holder removed the folder between the two
            continue
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # its last holder removed it: this lock is on a file that nobody else finds


def _let_go(descriptor: int, path: Path, *, keep: bool) -> None:
    if not keep:
        with suppress(OSError):  # before the lock is let go: whoever waits for it takes a new file
            path.unlink()
    # Closing alone would leave it to a child process that inherited the descriptor.
    _fcntl.flock(descriptor, _fcntl.LOCK_UN)
    os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
