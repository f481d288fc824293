"""The packets of one run, written and read the same way on both sides and on both planes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wash_fl.core.anchor import Anchor
from wash_fl.core.codec import delivery_dtype
from wash_fl.core.draw import Draw
from wash_fl.core.dtypes import FLOAT32
from wash_fl.core.packet import (
    Direction,
    Joined,
    PacketError,
    Refusal,
    Slice,
    decode,
    direction_of,
    encode,
    join,
    pack,
    split,
)
from wash_fl.protocol.anchored import Missed
from wash_fl.protocol.journal_rows import Delivery, Moved, Values

_NO_VALUES = np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Part:
    """One of the things that a member needs before it offers again.

    Attributes
    ----------
    direction : Direction
        ``DELIVERY``: it took part in the exchange. ``MISSED``: it did not. ``ANCHOR``: the whole anchor.
    exchange : int
        The exchange after which the member has it.
    values : ndarray of float32, shape (slots, count)
        D of that exchange, or the anchor, shape (slots, size).
    """

    direction: Direction
    exchange: int
    values: Values


@dataclass(frozen=True, eq=False)
class Deliveries:
    """All that a member needs before it offers again.

    Attributes
    ----------
    after, chain : int
        The last exchange that it has acknowledged, and the chain of the anchor by then.
    parts : tuple of Part
        In the order in which they are applied.
    whole : int
        The chain of the whole anchor, if that is the last part.
    """

    after: int
    chain: int
    parts: tuple[Part, ...]
    whole: int


@dataclass(frozen=True)
class RunPackets:
    """Offers and deliveries of a run as bytes; reading raises ``PacketError`` for what is not as expected.

    Parameters
    ----------
    run : bytes
        Identity of the run.
    draw : Draw
        Its coordinates; with its schedule come the options, which say the dtypes.
    """

    run: bytes
    draw: Draw

    def offer(self, member: int, exchange: int, values: Values, chain: int = 0) -> bytes:
        """Return the packet of a member's offer; its values are encoded in the run's dtype.

        ``chain`` is that of the anchor to which they are differences, if they are.
        """
        dtype, layout = self.draw.schedule.config.dtype, self.draw.layout
        return encode(Slice(Direction.OFFER, self.run, layout, exchange, member, values, dtype, chain))

    def read_offer(self, packet: bytes, member: int, exchange: int) -> Slice:
        """Return a member's offer for an exchange, its values as they travelled."""
        config = self.draw.schedule.config
        return decode(
            packet,
            direction=Direction.OFFER,
            run=self.run,
            layout=self.draw.layout,
            member=member,
            exchange=exchange,
            count=self.draw.count,
            dtype=config.dtype,
            chained=config.anchored,
        )

    def delivery(self, member: int, waiting: Delivery | None) -> bytes:
        """Return the packet of what waits for a member; empty if nothing does."""
        if waiting is None:
            return b""
        dtype, layout = self._delivery_dtype(waiting.exchange), self.draw.layout
        return encode(
            Slice(Direction.DELIVERY, self.run, layout, waiting.exchange, member, waiting.values, dtype)
        )

    def deliveries(self, member: int, missed: Missed, took_part: int | None) -> bytes:
        """Return the packet of all that a member has missed; ``took_part`` says in which its offer was."""
        packets = list(self._moves(member, missed.moves, took_part))
        whole = missed.whole
        if whole is not None:
            # Of the exchange that follows it: there is no exchange 0.
            packets.append(encode(self._slice(Direction.ANCHOR, missed.settled + 1, member, whole.values)))
        return join(Joined(missed.after, missed.chain, packets, 0 if whole is None else whole.chain))

    def read_deliveries(self, packet: bytes, member: int) -> Deliveries:
        """Return what a member has missed."""
        joined = split(packet)
        parts = tuple(self._part(each, member) for each in joined.packets)
        return Deliveries(joined.after, joined.chain, parts, joined.whole)

    def read_anchor(self, packet: bytes, member: int, exchange: int) -> Anchor:
        """Return the whole anchor after an exchange, which is all that a packet may hold."""
        deliveries = self.read_deliveries(packet, member)
        parts = deliveries.parts
        if [(each.direction, each.exchange) for each in parts] != [(Direction.ANCHOR, exchange)]:
            raise PacketError(Refusal.DIRECTION, f"it is not the anchor after exchange {exchange}.")
        return Anchor(parts[0].values.copy(), deliveries.whole)

    def _moves(self, member: int, moves: tuple[Moved, ...], took_part: int | None) -> Iterator[bytes]:
        dtype = delivery_dtype(self.draw.schedule.config)
        for moved in moves:
            direction = Direction.DELIVERY if moved.exchange == took_part else Direction.MISSED
            # Encoded once, for all members and all times.
            yield pack(self._slice(direction, moved.exchange, member, _NO_VALUES, dtype), moved.delta)

    def _part(self, packet: bytes, member: int) -> Part:
        direction = direction_of(packet)
        whole = direction is Direction.ANCHOR
        slice_ = decode(
            packet,
            direction=Direction.DELIVERY if direction is Direction.OFFER else direction,
            run=self.run,
            layout=self.draw.layout,
            member=member,
            count=(lambda exchange: self.draw.layout.size) if whole else self.draw.count,
            dtype=FLOAT32 if whole else delivery_dtype(self.draw.schedule.config),
        )
        return Part(direction, slice_.exchange - whole, slice_.values)

    def _slice(
        self, direction: Direction, exchange: int, member: int, values: Values, dtype: str = FLOAT32
    ) -> Slice:
        return Slice(direction, self.run, self.draw.layout, exchange, member, values, dtype)

    def read_delivery(self, packet: bytes, member: int) -> Delivery:
        """Return a delivery for a member, of whichever exchange."""
        slice_ = decode(
            packet,
            direction=Direction.DELIVERY,
            run=self.run,
            layout=self.draw.layout,
            member=member,
            count=self.draw.count,
            dtype=self._delivery_dtype,
        )
        return Delivery(slice_.exchange, slice_.values)

    def _delivery_dtype(self, exchange: int) -> str:
        return delivery_dtype(self.draw.schedule.options_at(exchange))
