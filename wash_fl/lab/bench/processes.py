"""Members' processes for a benchmark: forks of one that has imported PyTorch, so that they start together."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from typing import Any, Final

from wash_fl.errors import RunError
from wash_fl.lab.pools import ignore_interrupts
from wash_fl.system.interrupts import uninterrupted

PRELOADED: Final = (
    "wash_fl.lab.bench.stream_fleet",
    "wash_fl.lab.bench.bare_streams",
    # What a model and an optimizer import: several seconds each for processes that all start at once.
    "torchvision.models",
    "torch._dynamo",
)

Work = Callable[..., None]
"""What a process does: it is called with its arguments, a barrier at which it meets the others, and a
connection through which it sends its result."""


def results_of(
    work: Work, arguments: Sequence[tuple[Any, ...]], sleep: Callable[[float], None] = time.sleep
) -> list[Any]:
    """Have processes do the same work, one with each of these arguments, and return what each sends.

    ``sleep`` is what this process waits by, in seconds.

    Raises
    ------
    RunError
        If one ends without a word.
    """
    # PyTorch is imported once, in a process that has no threads, and the members' are its forks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    barrier = context.Barrier(len(arguments))
    started = []
    try:
        for each in arguments:
            here, there = context.Pipe()
            process = context.Process(target=_do, args=(work, *each, barrier, there), daemon=True)
            with uninterrupted():
                process.start()
                started.append((process, here))
            there.close()
        while any(process.is_alive() and not here.poll() for process, here in started):
            if any(process.exitcode for process, _ in started):
                raise RunError("a member's process has failed; see what it printed.")
            sleep(0.05)
        return [here.recv() for _, here in started]
    except EOFError as error:
        raise RunError("a member's process ended without a result; see what it printed.") from error
    except BaseException:
        # They wait for each other, or for this process: in vain.
        for process, _ in started:
            process.kill()
        _kill_forkserver()
        raise
    finally:
        for process, _ in started:
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()


def _kill_forkserver() -> None:
    """End the process that is forked, which would import PyTorch to the end; if needed, another starts."""
    # There is no public way.
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _do(work: Work, *arguments: Any) -> None:
    ignore_interrupts()
    work(*arguments)
