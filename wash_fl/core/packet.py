"""A slice as bytes: encoding, and decoding that refuses whatever is not exactly what is expected.

The format is the message ``wash.v1.Slice`` of ``proto/wash/v1/exchange.proto``; ``docs/protocol.md``
explains it byte by byte.
"""

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NoReturn, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray

from wash_fl.core.codec import decode_values, encode_values, encoded_size
from wash_fl.core.dtypes import DTYPES, FLOAT32
from wash_fl.core.layout import Layout
from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.errors import WashError

VERSION = 1
RUN_BYTES = 16

Values = NDArray[np.float32]

_Message = TypeVar("_Message", wire.Slice, wire.Deliveries)


class Refusal(StrEnum):
    """Why a packet is refused."""

    MALFORMED = "malformed"  # it is no wash.v1.Slice, or it is cut short
    TRAILING = "trailing"  # it holds more than the slice: unknown fields, or a field twice
    VERSION = "version"  # another version of the contract
    DIRECTION = "direction"  # an offer where a delivery is expected, or the reverse
    RUN = "run"  # of another run
    LAYOUT = "layout"  # of a model with other parameters
    EXCHANGE = "exchange"  # of another exchange
    MEMBER = "member"  # from or for another member
    DTYPE = "dtype"  # values in another encoding than the run's
    LENGTH = "length"  # not one value per slot and coordinate
    CHECKSUM = "checksum"  # altered on the way
    NON_FINITE = "non-finite"  # a value is infinite or not a number
    ENCODING = "encoding"  # bytes that encoding these values does not give
    CHAIN = "chain"  # it names an anchor, and is no offer of differences to one


class PacketError(WashError):
    """A packet is refused.

    Attributes
    ----------
    refusal : Refusal
        The reason, to be matched by code; the message is for people.
    """

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(f"packet refused ({refusal}): {message}")
        self.refusal = refusal


class Direction(Enum):
    """Which way a slice travels."""

    OFFER = wire.DIRECTION_OFFER
    DELIVERY = wire.DIRECTION_DELIVERY
    MISSED = wire.DIRECTION_MISSED
    ANCHOR = wire.DIRECTION_ANCHOR


@dataclass(frozen=True, eq=False)
class Slice:
    """The values of one member at the coordinates of one exchange.

    Attributes
    ----------
    direction : Direction
        Offer (from ``member``) or delivery (for ``member``).
    run : bytes
        Identity of the run, 16 bytes.
    layout : Layout
        What the values are of.
    exchange : int
        Number of the exchange, from 1.
    member : int
        Index of the member.
    values : ndarray of float32, shape (slots, count)
        In the order of the exchange's coordinates.
    dtype : str
        How they are encoded (:mod:`wash_fl.core.dtypes`); they may lose something by it.
    chain : int
        In an offer of differences: that of the anchor they are differences to
        (:func:`wash_fl.core.anchor.chained`); 0 in all else.
    """

    direction: Direction
    run: bytes
    layout: Layout
    exchange: int
    member: int
    values: Values
    dtype: str = FLOAT32
    chain: int = 0


def encode(slice_: Slice) -> bytes:
    """Return the packet of a slice.

    Raises
    ------
    PacketError
        With ``NON_FINITE`` if a value is infinite or not a number: a diverged member must not spread.
    """
    _check_finite(slice_.values, slice_)
    return pack(slice_, encode_values(slice_.values, slice_.dtype))


def pack(slice_: Slice, values: bytes) -> bytes:
    """Return the packet of a slice whose values are encoded already; those it has are not looked at."""
    message = wire.Slice(
        version=VERSION,
        direction=slice_.direction.value,
        run=slice_.run,
        layout=slice_.layout.fingerprint,
        exchange=slice_.exchange,
        member=slice_.member,
        dtype=DTYPES[slice_.dtype].number,
        values=values,
        chain=slice_.chain,
    )
    message.checksum = _checksum(message, values)
    return message.SerializeToString(deterministic=True)


def packet_size(layout: Layout, payload: int, *, chained: bool = False) -> int:
    """Return the bytes of a packet that carries so many, whatever they stand for: those of a slice.

    ``chained`` says that it is an offer of differences, which names its anchor.
    """
    # What the frame takes does not depend on what is in it, but for numbers: these are of the usual size.
    slice_ = wire.Slice(
        version=VERSION,
        direction=Direction.OFFER.value,
        run=bytes(RUN_BYTES),
        layout=layout.fingerprint,
        exchange=1,
        member=1,
        dtype=wire.DTYPE_FLOAT32,
        values=bytes(payload),
        checksum=2**64 - 1,
        chain=2**64 - 1 if chained else 0,
    )
    return slice_.ByteSize()


def decode(
    packet: bytes,
    *,
    direction: Direction,
    run: bytes,
    layout: Layout,
    member: int,
    count: Callable[[int], int],
    exchange: int | None = None,
    dtype: str | Callable[[int], str] = FLOAT32,
    chained: bool = False,
) -> Slice:
    """Return the slice of a packet, if it is what the receiver expects in every respect.

    Parameters
    ----------
    packet : bytes
        As it came from the wire.
    direction, run, layout, member
        What is expected, as in :class:`Slice`.
    count : callable
        Number of coordinates by exchange: :meth:`wash_fl.core.draw.Draw.count`.
    exchange : int, optional
        The exchange that is expected; None takes any from 1.
    dtype : str or callable
        The encoding that is expected; if it is not always the same, by exchange.
    chained : bool
        It is an offer of differences, and says to which anchor.

    Returns
    -------
    Slice
        Its values are as they travelled, and read-only.

    Raises
    ------
    PacketError
        For any departure; nothing else is raised, whatever the bytes are.
    """
    message = _parse(packet, wire.Slice)
    if message.version != VERSION:
        _refuse(
            Refusal.VERSION,
            f"its version is {message.version}, this side speaks {VERSION}; update the older.",
        )
    if message.direction != direction.value:
        _refuse(
            Refusal.DIRECTION, f"its direction is {message.direction}, expected {direction.name.lower()}."
        )
    if message.run != run:
        _refuse(Refusal.RUN, f"it is of run {message.run[:RUN_BYTES].hex()}, this run is {run.hex()}.")
    if message.layout != layout.fingerprint:
        _refuse(
            Refusal.LAYOUT,
            f"its layout is {message.layout[:32].hex()[:16]}, expected {layout.fingerprint.hex()[:16]}: "
            "all members need the same model and the same exchange-optimizer.",
        )
    if message.exchange < 1 or (exchange is not None and message.exchange != exchange):
        _refuse(
            Refusal.EXCHANGE, f"it is of exchange {message.exchange}, expected {exchange or 'one from 1'}."
        )
    if message.member != member:
        _refuse(Refusal.MEMBER, f"it names member {message.member}, expected {member}.")
    dtype = dtype if isinstance(dtype, str) else dtype(message.exchange)
    if message.dtype != DTYPES[dtype].number:
        _refuse(Refusal.DTYPE, f"its dtype is {message.dtype}, expected {DTYPES[dtype].number} ({dtype}).")
    if message.chain and not chained:
        _refuse(Refusal.CHAIN, "it names an anchor, and is no offer of differences to one.")
    slots, columns = len(layout.slots), count(message.exchange)
    expected = encoded_size(dtype, slots, columns)
    data = message.values  # a copy, whenever it is asked for
    if len(data) != expected:
        _refuse(
            Refusal.LENGTH,
            f"it holds {len(data)} bytes of values, expected {expected} ({slots} x {columns} {dtype}).",
        )
    if message.checksum != _checksum(message, data):
        _refuse(Refusal.CHECKSUM, "its contents do not match its checksum; it was altered on the way.")
    values = decode_values(data, dtype, slots, columns)
    decoded = Slice(direction, run, layout, message.exchange, member, values, dtype, message.chain)
    _check_finite(values, decoded)
    # Any bytes are those of some values of float32.
    if dtype != FLOAT32 and encode_values(values, dtype) != data:
        # It would travel on as other bytes than it came, and its sender's residual would not fit.
        _refuse(Refusal.ENCODING, f"its bytes are not those that encoding its values as {dtype} gives.")
    return decoded


def direction_of(packet: bytes) -> Direction:
    """Return which way a packet travels, as it says itself; nothing else is looked at.

    Raises
    ------
    PacketError
        If it is none, or says nothing that is known here.
    """
    number = _parse(packet, wire.Slice).direction
    try:
        return Direction(number)
    except ValueError:
        _refuse(Refusal.DIRECTION, f"its direction is {number}, which is none here: update the older side.")


@dataclass(frozen=True)
class Joined:
    """Packets that are delivered together.

    Attributes
    ----------
    after : int
        The last exchange that the member has acknowledged.
    chain : int
        That of the anchor by then (:func:`wash_fl.core.anchor.chained`).
    packets : sequence of bytes
        In the order in which they are applied.
    whole : int
        The chain of the whole anchor, if that is the last of them; else 0.
    """

    after: int
    chain: int
    packets: Sequence[bytes] = ()
    whole: int = 0


def join(joined: Joined) -> bytes:
    """Return packets that are delivered together as one."""
    message = wire.Deliveries(
        after=joined.after, chain=joined.chain, slices=joined.packets, whole=joined.whole
    )
    message.checksum = _joint_checksum(message)
    return message.SerializeToString(deterministic=True)


def split(data: bytes) -> Joined:
    """Return what :func:`join` was given; the packets themselves are not looked at.

    Raises
    ------
    PacketError
        If it did not make these bytes.
    """
    message = _parse(data, wire.Deliveries)
    if message.checksum != _joint_checksum(message):
        _refuse(
            Refusal.CHECKSUM, "what was delivered does not match its checksum; it was altered on the way."
        )
    return Joined(message.after, message.chain, list(message.slices), message.whole)


def value_bytes(packet: bytes) -> int:
    """Return how many bytes of a packet, or of several that are joined, are values; 0 for what is none.

    Nothing else is checked.
    """
    try:
        joined = wire.Deliveries.FromString(packet).slices
        slices = map(wire.Slice.FromString, joined or [packet])
        return sum(len(each.values) for each in slices)
    except DecodeError:
        return 0


def _parse(packet: bytes, kind: type[_Message]) -> _Message:
    name = kind.DESCRIPTOR.name
    try:
        message = kind.FromString(packet)
    except DecodeError:
        _refuse(Refusal.MALFORMED, f"{len(packet)} bytes are not a wash.v1.{name}, or only a part of one.")
    # Unknown or repeated fields would let a packet carry what nobody looks at.
    if len(UnknownFieldSet(message)) or message.ByteSize() != len(packet):
        _refuse(Refusal.TRAILING, f"{len(packet)} bytes hold more than one wash.v1.{name}.")
    return message


def _joint_checksum(message: wire.Deliveries) -> int:
    header = struct.pack("<QQQ", message.after, message.chain, message.whole)
    digest = hashlib.blake2b(header, digest_size=8)
    for packet in message.slices:
        digest.update(struct.pack("<Q", len(packet)))
        digest.update(packet)
    return int.from_bytes(digest.digest(), "little")


def _checksum(message: wire.Slice, values: bytes) -> int:
    """BLAKE2b-64 of the fixed-size header and the values; a CRC would miss one mutation in 2**32."""
    # An unknown enum number in an altered packet can be any int32, so both enums are hashed as signed.
    header = struct.pack(
        "<IiQIi", message.version, message.direction, message.exchange, message.member, message.dtype
    )
    digest = hashlib.blake2b(header, digest_size=8)
    for part in (message.run, message.layout, values):
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    if message.chain:
        digest.update(struct.pack("<Q", message.chain))
    return int.from_bytes(digest.digest(), "little")


def _check_finite(values: Values, slice_: Slice) -> None:
    if not np.isfinite(values).all():
        _refuse(
            Refusal.NON_FINITE,
            f"member {slice_.member} has {int((~np.isfinite(values)).sum())} values that are infinite or not "
            f"numbers at exchange {slice_.exchange}: its training diverged; lower learning-rate.",
        )


def _refuse(refusal: Refusal, message: str) -> NoReturn:
    raise PacketError(refusal, message)
