"""The processes that a process has started, as Linux lists them: for machines without psutil."""

import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")

_OVER: Final = ("Z", "X")


def are_listed() -> bool:
    """Return whether the system lists processes so: Linux does."""
    return (PROC / "self" / "stat").exists()


def children(pid: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the children of a process that run: each one's id and its command.

    One that has ended and that nobody has waited for is left out.
    """
    for folder in PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        # Between the listing and the reading it may have ended.
        with suppress(OSError):
            # The command's name stands in brackets, and may hold anything.
            state, parent, *_ = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(parent) == pid and state not in _OVER:
                command = (folder / "cmdline").read_bytes().decode(errors="surrogateescape")
                yield int(folder.name), command.split("\0")[:-1]


def catches(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal at this moment."""
    with suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            name, _, mask = line.partition(":")
            if name == "SigCgt":
                return bool(int(mask, 16) >> (number - 1) & 1)
    return False
