"""What the stream plane's messages hold: made and checked in one place, on both sides.

A packet longer than ``PART`` travels in parts, each a message of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.errors import ExchangeError

VERSION: Final = 1
METHOD: Final = "Exchange"
SERVICE: Final = "wash.v1.Exchange"
PATH: Final = f"/{SERVICE}/{METHOD}"

PART: Final = 1 << 20
"""Bytes of a packet in one message; gRPC's own limit is 4 MiB."""
LONGEST: Final = PART + 4096
"""Bytes of a message."""
CHANNEL: Final = (
    ("grpc.max_receive_message_length", LONGEST),
    ("grpc.max_send_message_length", LONGEST),
    # A router that forgot a connection does not say so.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
"""gRPC's options on both sides."""
_OVERHEAD: Final = 256
"""Bytes of a packet that are not values, at most."""


class Status(Enum):
    """What the server says; ``exchange.proto`` has a sentence for each."""

    WELCOME = wire.STATUS_WELCOME
    DELIVERED = wire.STATUS_DELIVERED
    ALONE = wire.STATUS_ALONE
    LATE = wire.STATUS_LATE
    UNDELIVERED = wire.STATUS_UNDELIVERED
    EARLY = wire.STATUS_EARLY
    REFUSED = wire.STATUS_REFUSED
    ASIDE = wire.STATUS_ASIDE
    DENIED = wire.STATUS_DENIED
    REPLACED = wire.STATUS_REPLACED
    ANEW = wire.STATUS_ANEW


@dataclass(frozen=True, eq=False)
class Answer:
    """What a member hears.

    Attributes
    ----------
    status : Status
        The server's word.
    settled : int
        The last exchange that is settled.
    packet : bytes
        The delivery that waits for the member; empty if none does.
    reason : str
        For people.
    """

    status: Status
    settled: int
    packet: bytes = b""
    reason: str = ""


def longest_packet(value_bytes: int) -> int:
    """Return how many bytes a packet with so many bytes of values may have."""
    return value_bytes + _OVERHEAD


def read(kind: type[Message], data: bytes) -> Any:
    """Return a message from its bytes.

    Raises
    ------
    ExchangeError
        If they are none.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ExchangeError(
            f"{len(data)} bytes that are no {kind.__name__}: update the older side."
        ) from error


def offer_messages(exchange: int, applied: int, packet: bytes) -> Iterator[bytes]:
    """Return the messages of an offer."""
    for number, (part, more) in enumerate(_parts(packet)):
        first = {"exchange": exchange, "applied": applied} if number == 0 else {}
        yield wire.MemberMessage(offer=wire.Offer(packet=part, more=more, **first)).SerializeToString()


def answer_messages(answer: Answer) -> Iterator[bytes]:
    """Return the messages of an answer."""
    for number, (part, more) in enumerate(_parts(answer.packet)):
        message = wire.ServerMessage(packet=part, more=more)
        if number == 0:
            message.status, message.settled = answer.status.value, answer.settled
            message.reason = answer.reason
        yield message.SerializeToString()


class Assembly:
    """A packet that comes in parts.

    Parameters
    ----------
    longest : int
        Bytes it may have.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes, *, more: bool) -> bytes | None:
        """Take the next part; return the whole packet after the last.

        Raises
        ------
        ExchangeError
            If it is longer than any packet of this run.
        """
        self._size += len(part)
        if self._size > self._longest or (more and not part):
            size, self._parts, self._size = self._size, [], 0
            raise ExchangeError(
                f"a packet of {size} bytes and more; in this exchange none has more than {self._longest}."
            )
        self._parts.append(part)
        if more:
            return None
        packet = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._size = [], 0
        return packet


def _parts(packet: bytes) -> Iterator[tuple[bytes, bool]]:
    if len(packet) <= PART:
        yield packet, False
        return
    for begin in range(0, len(packet), PART):
        yield packet[begin : begin + PART], begin + PART < len(packet)
