"""What travels between the model's server and its members: docs/protocol.md section 8, without Flower."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from numpy.typing import NDArray

Weights = Mapping[str, NDArray[Any]]


class Kind(StrEnum):
    """What is asked."""

    JOIN = "join"
    TRAIN = "train"
    COLLECT = "collect"


class Status(StrEnum):
    """How a member answers."""

    DONE = "done"
    NOT_JOINED = "not-joined"
    REFUSED = "refused"


@dataclass(frozen=True, eq=False)
class Start:
    """Weights to start from, after which exchange, and the number of the start."""

    weights: Weights
    exchange: int = 0
    incarnation: int = 0


@dataclass(frozen=True, eq=False)
class Request:
    """From the server to a member; ``number`` tells requests apart, as Flower's message id does."""

    number: int
    member: int
    kind: Kind
    round: int = 0
    delivery: bytes = b""
    start: Start | None = None

    def corrupted(self, number: int) -> Self | None:
        """Return the request with a bit of its packet flipped, another one by number; None without one."""
        return replace(self, delivery=_flipped(self.delivery, number)) if self.delivery else None


@dataclass(frozen=True, eq=False)
class Reply:
    """From a member to the server; ``number`` is that of the request."""

    number: int
    member: int
    status: Status
    round: int = 0
    applied: int = 0
    incarnation: int = 0
    initial: str = ""
    offer: bytes = b""
    weights: Weights | None = None
    reason: str = ""

    def corrupted(self, number: int) -> Self | None:
        """Return the reply with a bit of its packet flipped, another one by number; None without one."""
        return replace(self, offer=_flipped(self.offer, number)) if self.offer else None


def _flipped(packet: bytes, number: int) -> bytes:
    changed = bytearray(packet)
    bit = number * 2654435761 % (8 * len(changed))
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
