"""Whether Ray, the engine on which Flower simulates, has come up; and what it said if it has not."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from wash_fl.deploy import processes
from wash_fl.errors import RunError

START_SECONDS: Final = 300.0
"""How long Ray may take to start a worker; half a minute is usual on a slow machine."""

LOOK_SECONDS: Final = 10.0
"""How often is looked for one: it takes a moment on a machine with many processes."""

_CRASHED = re.compile(r"An exception occur+ed ?!* *(.+)")


def failure(log: Path) -> str:
    """Return why the engine ended, from Flower's log; empty if it does not say that it has failed."""
    with suppress(OSError):
        # The first: Flower raises it again, in words of its own.
        if match := _CRASHED.search(processes.read_log(log)):
            reason = " ".join(match[1].split())[:300].rstrip(". ")
            return f"Flower's simulation engine, Ray, failed: {reason}"
    return ""


class Watch:
    """Sees whether the engine ever starts a worker: without one, Flower would wait for hours.

    Parameters
    ----------
    mark : str
        Of the processes that came of this simulation.
    log : Path
        Flower's, to name in an error.
    now : callable
        What the waiting is measured by.
    """

    def __init__(self, mark: str, log: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._mark = mark
        self._log = log
        self._now = now
        self._began = self._looked = now()
        self._started = False

    def check(self) -> None:
        """Look for a worker, now and then, until there is one.

        Raises
        ------
        RunError
            If there is none after all that time.
        """
        now = self._now()
        if self._started or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._started = _has_worker(self._mark)
        if not self._started and now - self._began > START_SECONDS:
            raise RunError(
                f"Flower's simulation engine, Ray, has started no worker in {START_SECONDS:g} s (Flower's "
                f"log: {self._log}): see what keeps it from starting processes on this machine, or use a "
                "real fleet."
            )


def _has_worker(mark: str) -> bool:
    import psutil

    for process in processes.marked(mark):
        with suppress(psutil.Error, OSError):
            if any(part.startswith("ray::") or "default_worker.py" in part for part in process.cmdline()):
                return True
    return False
