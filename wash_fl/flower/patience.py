"""Asking a SuperLink again that fails to answer: its database was locked for a moment, a disk was slow.

Flower asks again where a SuperLink is away, and not where it answers with an error of its own; the run would
end for good.
"""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from wash_fl.clock import Clock

logger = logging.getLogger("flwr.wash_fl")

PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before it is asked again: a minute in all."""

_SERVERS_OWN: Final = range(500, 600)
"""Status codes of HTTP that blame the server and not the request."""

Result = TypeVar("Result")


def patiently(call: Callable[[], Result], clock: Clock | None = None) -> Result:
    """Return what a call to the SuperLink does, made again for a minute while that fails by its own fault.

    Whatever is asked of a SuperLink may come twice.

    Parameters
    ----------
    call : callable
        What is done.
    clock : Clock, optional
        What waiting is measured by.
    """
    for pause in PAUSES:
        try:
            return call()
        except Exception as error:
            # Not by its class: Flower has changed its library for this more than once.
            code = getattr(getattr(error, "response", None), "status_code", None)
            if code not in _SERVERS_OWN:
                raise
            logger.warning("the SuperLink failed (%s); it is asked again in %g s", code, pause)
            (clock or Clock()).sleep(pause)
    return call()
