"""Processes that do pieces of work side by side, and none of which outlives who waits for them."""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from wash_fl.system.interrupts import uninterrupted


class Pool(ProcessPoolExecutor):
    """Processes that are started whole: one that loses its parent while it starts prints a traceback."""

    def submit(self, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Return the result to come; this starts a process if none is idle."""
        with uninterrupted():
            return super().submit(*arguments, **keywords)


@contextmanager
def pool_of(workers: int) -> Iterator[Pool]:
    """Return so many processes; if the block raises, what is under way is lost, and nobody waits for it."""
    # Not forked: torch has threads.
    context = multiprocessing.get_context("spawn")
    pool = Pool(workers, mp_context=context, initializer=ignore_interrupts)
    try:
        yield pool
    except BaseException:
        # Before Python 3.14 there is no public way.
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that started this one; it says one thing, and not each of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
