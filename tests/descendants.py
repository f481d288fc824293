"""What a command starts, however it detaches itself: looked for while it runs, so that none can hide later.

Another run on the same machine, of another test or of somebody else, is no descendant and disturbs nothing.
"""

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

VARIABLE = "WASH_FL_TEST"
"""Inherited by whatever a command starts."""

LOOK_SECONDS = 0.5
"""Between two looks: a process that overwrites its environment is found as a child of one that does not."""


class Descendants:
    """The processes that come of one command.

    Attributes
    ----------
    environment : dict of str to str
        In which the command is to be started.
    seen : dict of psutil.Process to str
        All that were there at some time, with their command lines; a process is its id and when it began.
    """

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self.environment = os.environ | {VARIABLE: self._mark}
        self.processes: dict[psutil.Process, str] = {}
        self._strangers: set[psutil.Process] = set()

    def look(self) -> None:
        """Add those that are there now."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process in self._strangers:
                    continue
                if process in self.processes or self._is_ours(process):
                    # The latest title: one that was just forked has its parent's.
                    self.processes[process] = " ".join(process.cmdline()) or self.processes.get(process, "")
                else:
                    self._strangers.add(process)

    def _is_ours(self, process: psutil.Process) -> bool:
        return process.environ().get(VARIABLE) == self._mark or process.parent() in self.processes

    def alive(self) -> list[str]:
        """Return the command lines of those that run now."""
        self.look()
        return [line for process, line in self.processes.items() if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextmanager
def watched() -> Iterator[Descendants]:
    """Look for a command's processes again and again, until the context ends."""
    descendants, over = Descendants(), threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            descendants.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield descendants
    finally:
        over.set()
        watcher.join()
