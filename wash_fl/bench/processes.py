"""Members' processes for a benchmark: forks of one that has imported PyTorch, so that they start together."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from wash_fl.errors import RunError

PRELOADED: Final = (
    "wash_fl.bench.stream_fleet",
    "wash_fl.bench.bare_streams",
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
            process = context.Process(target=work, args=(*each, barrier, there), daemon=True)
            process.start()
            there.close()
            started.append((process, here))
        while any(process.is_alive() and not here.poll() for process, here in started):
            if any(process.exitcode for process, _ in started):
                raise RunError("a member's process has failed; see what it printed.")
            sleep(0.05)
        return [here.recv() for _, here in started]
    except EOFError as error:
        raise RunError("a member's process ended without a result; see what it printed.") from error
    finally:
        for process, _ in started:
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()
