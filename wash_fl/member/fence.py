"""Which server a member answers to: the last one that asked who it is.

A request can be on its way for long: in a stalled process, on a link that is slow. If the server that sent it
has died, and an older copy of its journal is in place since, what it asks belongs to a history that is not.
So whenever another server asks a member who it is, the member issues a *fencing token*, which that server's
requests carry from then on; a request that carries an older one is not done.
"""

import json
import logging
import secrets
from dataclasses import asdict, dataclass
from typing import Protocol

from wash_fl.errors import StateError, UnmetError

logger = logging.getLogger("flwr.wash_fl")


@dataclass(frozen=True)
class Fence:
    """The server that a member answers to.

    Attributes
    ----------
    server : str
        What the server calls itself, from its start to its end.
    token : str
        What its requests carry.
    """

    server: str
    token: str

    def to_json(self) -> str:
        """Return it as a file's content."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Fence":
        """Return what a file's content says; one that is damaged fences everybody off.

        Nothing is lost by that: the server asks the member once more who it is.
        """
        try:
            found = json.loads(text)
            return Fence(str(found["server"]), str(found["token"]))
        except (ValueError, KeyError, TypeError):
            return Fence("", "")


class FenceStore(Protocol):
    """Where a member's fence is kept, beside its state."""

    def fence(self) -> Fence | None:
        """Return the fence; None if there is none."""

    def keep_fence(self, fence: Fence) -> None:
        """Keep a fence in place of any other; it outlasts the process when this returns."""


def meet(store: FenceStore, server: str) -> str:
    """Return the token of a server that asks a member who it is: a new one, if another was met last.

    Parameters
    ----------
    store : FenceStore
        Where the member's fence is.
    server : str
        What the server calls itself.

    Returns
    -------
    str
        16 hexadecimal digits. Empty if ``server`` is, as with a server of an older version, or if no token
        can be kept: the server's requests then carry none.
    """
    if not server:
        return ""
    before = store.fence()
    if before is not None and before.server == server:
        return before.token
    fence = Fence(server, secrets.token_hex(8))
    try:
        store.keep_fence(fence)
    except StateError as error:
        # A full disk may have room again by the time that this member trains.
        logger.warning("requests of an earlier server are not told apart: %s", error)
        return ""
    return fence.token


def check(store: FenceStore, token: str) -> None:
    """Raise if a request is not of the server that the member met last.

    Parameters
    ----------
    store : FenceStore
        Where the member's fence is.
    token : str
        What the request carries; empty if it is of a server that was given none.

    Raises
    ------
    UnmetError
        If another server has met this member since the request's token was issued.
    """
    fence = store.fence()
    if token and fence is not None and fence.token != token:
        raise UnmetError("another server has asked this member who it is since: it answers to that one.")
