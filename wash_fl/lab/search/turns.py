"""A function that stops in the middle, so that anything can happen before its caller lets it go on."""

import threading
from collections.abc import Callable
from typing import Any


class Turns:
    """Runs a function in a thread of its own, which works only while :meth:`go_on` waits for it.

    Parameters
    ----------
    function : callable
        Without arguments; it pauses by :meth:`pause`.

    Attributes
    ----------
    done : bool
        Whether it has returned or raised.
    result : object
        What it returned.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.done = False
        self.result: Any = None
        self._function = function
        self._its_turn, self._callers_turn = threading.Lock(), threading.Lock()
        self._its_turn.acquire()
        self._callers_turn.acquire()
        self._value: Any = None
        self._raised: BaseException | None = None
        self._thread: threading.Thread | None = None

    def go_on(self, value: Any = None) -> None:
        """Let the function run until it pauses or ends; a pause that it is in returns this, or raises it.

        Raises
        ------
        BaseException
            What the function raises.
        """
        self._value = value
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        else:
            self._its_turn.release()
        self._callers_turn.acquire()
        if self.done:
            self._thread.join()
        if self._raised is not None:
            raise self._raised

    def pause(self) -> Any:
        """Stop, for the function itself; return what it is let go on with, or raise it."""
        self._callers_turn.release()
        self._its_turn.acquire()
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:  # it is the caller's
            self._raised = error
        self.done = True
        self._callers_turn.release()
