"""Network namespaces of Linux: made, entered, and gone when nobody holds them any more."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from wash_fl.errors import RunError

_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWNS: Final = 0x00020000
_MS_REC_PRIVATE: Final = 0x4000 | 0x40000
_HERE: Final = "/proc/thread-self/ns/net"
_DISABLE_IPV6: Final = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")


def new_namespace() -> int:
    """Return a descriptor of a new namespace, which the calling thread has entered.

    The namespace is gone once its descriptors are closed and no process is in it: it has no name that a kill
    could leave behind.

    Raises
    ------
    RunError
        If this process may not make one.
    """
    try:
        _call("unshare", _CLONE_NEWNET)
    except OSError as error:
        raise RunError(
            f"cannot make a network namespace ({error.strerror}): type this as root, on Linux, and outside "
            "containers that forbid it."
        ) from error
    # Its chatter with neighbours would be counted, and nobody here speaks it.
    if _DISABLE_IPV6.exists():
        _DISABLE_IPV6.write_text("1\n", encoding="ascii")
    return os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def entered(namespace: str | int) -> Iterator[None]:
    """Let the calling thread, and whatever it starts meanwhile, be in a namespace.

    Parameters
    ----------
    namespace : str or int
        A file that stands for it, or a descriptor.
    """
    before = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC) if isinstance(namespace, str) else namespace
        try:
            _call("setns", target, _CLONE_NEWNET)
        finally:
            if target != namespace:
                os.close(target)
        try:
            yield
        finally:
            _call("setns", before, _CLONE_NEWNET)
    finally:
        os.close(before)


def own_mounts() -> None:
    """Let the calling thread, and whatever it starts, have mounts that nobody else sees until they end.

    Raises
    ------
    RunError
        If this process may not.
    """
    try:
        _call("unshare", _CLONE_NEWNS)
        _call("mount", b"none", b"/", None, _MS_REC_PRIVATE, None)
    except OSError as error:
        raise RunError(f"cannot have mounts of one's own ({error.strerror}): type this as root.") from error


def identity(namespace: str) -> tuple[int, int]:
    """Return what tells the namespace of a file from all others."""
    status = Path(namespace).stat()
    return status.st_dev, status.st_ino


def _call(name: str, *arguments: int | bytes | None) -> None:
    """Call the C library: Python has these from 3.12 on."""
    if not sys.platform.startswith("linux"):
        raise OSError(0, "this system has none")
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
