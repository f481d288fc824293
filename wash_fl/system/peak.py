"""A program that is run to its end, and the most memory that it had meanwhile, however it ended."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import resource

SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """How a program ended.

    Attributes
    ----------
    status : int
        Its exit status; negative is the signal that ended it.
    peak : int
        Bytes of memory that it had at most in RAM at a time, shared libraries among them, without programs
        that it started itself.
    seconds : float
        How long it ran.
    timed_out : bool
        Whether it was stopped because it took too long.
    out, err : str
        What it printed.
    """

    status: int
    peak: int
    seconds: float
    timed_out: bool
    out: str
    err: str


def watch(
    command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None
) -> ProcessResult:
    """Run a program, with nothing to read, to its end.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    timeout : float
        Seconds after which it is killed, with all that it has started.
    environment : mapping of str to str, optional
        Its environment; by default this process's.
    """
    ours = resident_peak()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=None if environment is None else dict(environment),
            # So that all of it can be stopped, and Ctrl-C reaches this process alone, which then does so.
            start_new_session=True,
        )
        try:
            status, sampled, accounted, timed_out = _wait(process.pid, timeout)
        except BaseException:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        process.returncode = status
        seconds = time.monotonic() - began
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    # The system's account is exact, but begins with this process's own peak, of which the program was a copy
    # for a moment; below that, the samples have to do.
    peak = accounted if accounted > ours or not sampled else sampled
    return ProcessResult(
        status=status, peak=peak, seconds=seconds, timed_out=timed_out, out=texts[0], err=texts[1]
    )


def resident_peak(pid: int | None = None) -> int:
    """Return the most bytes that a process had in RAM; this one by default; 0 if the system does not say."""
    return _of_status("VmHWM", pid)


def accounted_peak(usage: "resource.struct_rusage") -> int:
    """Return the most bytes in RAM by the system's account, which has the same name and two units."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def private(pid: int | None = None) -> int:
    """Return how many bytes a process has in RAM now that are not pages of files, such as libraries.

    Those the system can drop and read again, and processes share them. 0 if the system does not say.
    """
    return _of_status("RssAnon", pid)


def _of_status(name: str, pid: int | None) -> int:
    try:
        text = Path(f"/proc/{'self' if pid is None else pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    values = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:")]
    return 1024 * int(values[0]) if values else 0


def _wait(pid: int, timeout: float) -> tuple[int, int, int, bool]:
    """Return the status, the largest peak sampled, the one accounted, and whether it took too long."""
    deadline = time.monotonic() + timeout
    sampled, timed_out = 0, False
    pause = threading.Event()
    while True:
        sampled = max(sampled, resident_peak(pid))
        child, status, usage = os.wait4(pid, os.WNOHANG)
        if child:
            break
        if not timed_out and time.monotonic() > deadline:
            timed_out = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        pause.wait(SAMPLE_SECONDS)
    return os.waitstatus_to_exitcode(status), sampled, accounted_peak(usage), timed_out
