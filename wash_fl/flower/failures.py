"""What a Flower message that comes back means: a member's answer, or why there is none."""

import logging
import re
from functools import partial
from typing import Final

from flwr.app import Error, Message
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from wash_fl.errors import ExchangeError
from wash_fl.flower.patience import patiently
from wash_fl.flower.records import read_answer
from wash_fl.protocol.messages import Answer, Failure, Lost
from wash_fl.protocol.text import printable
from wash_fl.sources import REMEDY, own_sources

logger = logging.getLogger("flwr.wash_fl")

GONE, KILLED = 5, 8
"""Flower's error codes for a SuperNode that is not heard of, and for a ClientApp that was killed."""

LOST: Final = {GONE: Lost.NODE, KILLED: Lost.APP}

ERRORS: Final = {
    1: "its ClientApp could not be loaded",
    2: "its ClientApp raised an exception",
    3: "the message expired before it was answered",
    4: "its answer expired on the way",
    6: "one of its mods refused",
    7: "it does not accept this app",
} | {code: str(lost) for code, lost in LOST.items()}
"""What Flower's error codes mean, in the words of the log."""

NOT_OF_ITS_OWN: Final = (0, 3, 4, GONE)
"""Error codes that say nothing of the client: the way to it is to blame, or it is not known what."""

_RAISED = re.compile(r"<class '(?:[\w.<>]*\.)?(\w+)'>:<'(.*)'>", re.DOTALL)
"""How Flower's own runtime says which exception a ClientApp raised."""


_NOT_IMPORTED: Final = ("ModuleNotFoundError", "ImportError")


def pull(grid: Grid, message_ids: list[str]) -> list[Message]:
    """Return the replies that came.

    A reply whose bytes are none of Flower's objects makes Flower's own grid raise whatever reading them does,
    and lose what it had read before it in the same call; that is as if those replies were lost on the way.
    """
    try:
        return list(patiently(partial(grid.pull_messages, message_ids))) if message_ids else []
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, DecodeError) as error:
        logger.warning("replies were lost, for one of them cannot be read: %r", error)
        return []


def understand(reply: Message) -> Answer | Failure:
    """Return what a reply says, or why it is of no use."""
    if reply.has_error():
        code = reply.error.code
        return Failure(_said(reply.error), code not in NOT_OF_ITS_OWN, LOST.get(code), code)
    try:
        return read_answer(reply)
    except ExchangeError as error:
        return Failure(f"it answered by {error}", its_own=True)


def _said(error: Error) -> str:
    """Return what one of Flower's errors means, and what the exception behind it said, if it tells."""
    meaning = ERRORS.get(error.code, "unknown error")
    text = (error.reason or "").strip()
    if raised := _RAISED.fullmatch(text):
        said = raised[2].strip().splitlines()
        if raised[1] in _NOT_IMPORTED and "'wash_fl" in raised[2]:
            # Before any code of ours runs: a device without wash_fl, or with another one than the app's.
            return printable(
                f"the device's wash_fl is missing, or not the server's {own_sources().version} "
                f"({raised[1]}: {said[0]}): {REMEDY}"
            )
        return f"{meaning}: {printable(': '.join([raised[1], *said[:1]]))}"
    lines = text.splitlines()  # of a traceback the last says what it was
    return f"{meaning}: {printable(lines[-1])}" if lines else meaning
