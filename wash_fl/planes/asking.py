"""Flower's Grid as the server sees it: which nodes are there, what comes back, and what it means."""

import logging

from flwr.app import Message
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from wash_fl.errors import ExchangeError, RunError
from wash_fl.planes.clock import Clock, Pause
from wash_fl.planes.records import Answer, Status, printable, read_answer

logger = logging.getLogger("flwr.wash_fl")

GONE, KILLED = 5, 8
"""Flower's error codes for a SuperNode that is not heard of, and for a ClientApp that was killed."""

ERRORS = {
    1: "its ClientApp could not be loaded",
    2: "its ClientApp raised an exception",
    3: "the message expired before it was answered",
    4: "its answer expired on the way",
    GONE: "its SuperNode is gone",
    6: "one of its mods refused",
    7: "it does not accept this app",
    KILLED: "its ClientApp was killed",
}
"""What Flower's error codes mean, in the words of the log."""


def wait_for_nodes(grid: Grid, wanted: int, timeout: float, *, enough: int, clock: Clock) -> list[int]:
    """Return the connected nodes as soon as there are ``wanted``; after ``timeout`` seconds, if ``enough``.

    Raises
    ------
    RunError
        If there are fewer than ``enough`` after ``timeout`` seconds.
    """
    deadline = clock.now() + timeout
    pause = Pause(clock)
    announced = -1
    while True:
        nodes = sorted(grid.get_node_ids())
        late = clock.now() >= deadline
        if len(nodes) >= wanted or (late and len(nodes) >= enough):
            return nodes
        if late:
            raise RunError(
                f"{len(nodes)} of {wanted} clients connected within {timeout:g} s: start the others (in a "
                f"simulation: --federation-config num-supernodes={wanted}), or lower min-members."
            )
        if len(nodes) != announced:
            logger.info("waiting for clients: %d of %d are connected", len(nodes), wanted)
            announced = len(nodes)
        pause.wait(deadline)


def pull(grid: Grid, message_ids: list[str]) -> list[Message]:
    """Return the replies that came.

    A reply whose bytes are none of Flower's objects makes Flower's own grid raise whatever reading them does,
    and lose what it had read before it in the same call; that is as if those replies were lost on the way.
    """
    try:
        return list(grid.pull_messages(message_ids)) if message_ids else []
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, DecodeError) as error:
        logger.warning("replies were lost, for one of them cannot be read: %r", error)
        return []


def understand(who: str, asked_for: str, reply: Message | None) -> Answer | None:
    """Return what a reply says, or None, with the reason in the log, if it is no use."""
    if reply is None:
        logger.warning("%s: no reply to %s in time", who, asked_for)
        return None
    if reply.has_error():
        reason = (reply.error.reason or "").strip().splitlines()
        logger.warning(
            "%s: %s failed: %s (code %d%s)",
            who,
            asked_for,
            ERRORS.get(reply.error.code, "unknown error"),
            reply.error.code,
            f", {printable(reason[-1])}" if reason else "",
        )
        return None
    try:
        given = read_answer(reply)
    except ExchangeError as error:
        logger.warning("%s: %s was answered by %s", who, asked_for, error)
        return None
    if given.status is Status.REFUSED:
        logger.warning("%s refused %s: %s", who, asked_for, given.reason)
    elif given.status is Status.NOT_JOINED:
        logger.info("%s holds no state of this run", who)
    return given
