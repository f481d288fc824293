"""What the stream plane's messages hold: made and checked in one place, on both sides.

A packet longer than ``PART`` travels in parts, each a message of its own.
"""

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from wash_fl.config import ExchangeConfig
from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.errors import ExchangeError
from wash_fl.protocol.anchored import MOST_MISSED
from wash_fl.protocol.messages import ServerReply, ServerStatus

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


STATUS: Final[dict[ServerStatus, int]] = {
    each: wire.Status.Value(f"STATUS_{each.name}") for each in ServerStatus
}
"""What each word of the server is on the wire; ``exchange.proto`` has a sentence for each."""

STATUS_OF: Final = {number: each for each, number in STATUS.items()}


def longest_packet(value_bytes: int) -> int:
    """Return how many bytes a packet with so many bytes of values may have."""
    return value_bytes + _OVERHEAD


def longest_delivery(exchange: ExchangeConfig, values: int) -> int:
    """Return how many bytes the packet may have that waits for a member of a model with so many values."""
    if not exchange.anchored:
        return longest_packet(4 * values)
    # The whole anchor and a delivery before it, or what was missed, which has no more bytes of values.
    return 2 * longest_packet(4 * values) + MOST_MISSED * _OVERHEAD


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


def reply_messages(reply: ServerReply) -> Iterator[bytes]:
    """Return the messages of a server's reply."""
    for number, (part, more) in enumerate(_parts(reply.packet)):
        message = wire.ServerMessage(packet=part, more=more)
        if number == 0:
            message.status = STATUS[reply.status]  # type: ignore[assignment]
            message.settled, message.reason = reply.settled, reply.reason
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
