"""Being stopped: a signal that asks for it is Ctrl-C, once, so that what was started is stopped as well."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a program to end."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, and let the first one alone count.

    A SIGHUP that is ignored, as ``nohup`` has it, stays ignored.
    Only a program's main thread can do so; in another one, signals are left as they are.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [each for each in ASKING if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, interrupt) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal that asks for the end wait until the block is over, so that it does not find it half done.

    In a thread that is not the main one nothing interrupts anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    # One that is ignored stays so: what is started meanwhile inherits that.
    before = {each: signal.getsignal(each) for each in ASKING if signal.getsignal(each) is not signal.SIG_IGN}
    for each in before:
        signal.signal(each, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in arrived:
            signal.raise_signal(number)
