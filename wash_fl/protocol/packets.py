"""The packets of one run, written and read the same way on both sides and on both planes."""

from dataclasses import dataclass

from wash_fl.core.codec import delivery_dtype
from wash_fl.core.draw import Draw
from wash_fl.core.packet import Direction, Slice, decode, encode
from wash_fl.protocol.journal_rows import Delivery, Values


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

    def offer(self, member: int, exchange: int, values: Values) -> bytes:
        """Return the packet of a member's offer; its values are encoded in the run's dtype."""
        dtype = self.draw.schedule.config.dtype
        return encode(Slice(Direction.OFFER, self.run, self.draw.layout, exchange, member, values, dtype))

    def read_offer(self, packet: bytes, member: int, exchange: int) -> Values:
        """Return the values of a member's offer for an exchange, shape (slots, count), as they travelled."""
        return decode(
            packet,
            direction=Direction.OFFER,
            run=self.run,
            layout=self.draw.layout,
            member=member,
            exchange=exchange,
            count=self.draw.count,
            dtype=self.draw.schedule.config.dtype,
        ).values

    def delivery(self, member: int, waiting: Delivery | None) -> bytes:
        """Return the packet of what waits for a member; empty if nothing does."""
        if waiting is None:
            return b""
        dtype, layout = self._delivery_dtype(waiting.exchange), self.draw.layout
        return encode(
            Slice(Direction.DELIVERY, self.run, layout, waiting.exchange, member, waiting.values, dtype)
        )

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
