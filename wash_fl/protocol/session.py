"""Every decision of a member about exchanges: what it offers, and what deliveries and replies make of it.

It is the same on both planes, in the in-process trainer, and under the search for faults. Where the member's
values are, and what is durable, is the caller's: :class:`Holder` and :class:`Record`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from wash_fl.core.anchor import Anchor, chained, difference, taken_part
from wash_fl.core.codec import rounded, taken_over
from wash_fl.core.packet import Direction
from wash_fl.errors import ExchangeError, NotJoinedError
from wash_fl.protocol.delivery import fell_back, not_known, values_after
from wash_fl.protocol.journal_rows import Values
from wash_fl.protocol.messages import ServerReply, ServerStatus
from wash_fl.protocol.packets import Part, RunPackets

logger = logging.getLogger("flwr.wash_fl")

SETTLED = frozenset({ServerStatus.DELIVERED, ServerStatus.ALONE})
"""The exchange that was offered for is settled."""

AGAIN = frozenset({ServerStatus.LATE, ServerStatus.EARLY, ServerStatus.UNDELIVERED})
"""The offer was for another exchange than the next."""


class Holder(Protocol):
    """Whose values are exchanged.

    Attributes
    ----------
    index : int
        The member's index.
    applied : int
        The last exchange whose delivery it holds.
    anchor : Anchor or None
        Its anchor; None where values travel.
    """

    index: int
    applied: int
    anchor: Anchor | None

    def offer(self, exchange: int) -> Values:
        """Return a copy of what it holds at the coordinates of an exchange, shape (slots, count)."""

    def deliver(self, exchange: int, values: Values) -> bool:
        """Hold these values there from now on, and take note that they are applied."""


class Record(Protocol):
    """Where a session writes down what it is about to do, so that it is there after a crash."""

    def offered(self, exchange: int, values: Values) -> None:
        """Write down what is offered."""

    def applied(self, exchange: int, values: Values) -> None:
        """Write down what is held instead."""

    def settled(self, exchange: int, values: Values, delta: Values) -> None:
        """Write down what is held instead, and by how much the anchor moves, as a whole or not at all."""

    def missed(self, exchange: int, delta: Values) -> None:
        """Write down by how much the anchor moves."""

    def anchored(self, exchange: int, anchor: Anchor) -> None:
        """Write down the whole anchor, as it is after an exchange."""


class NoRecord:
    """A record for who saves the whole member before anybody hears of it."""

    def offered(self, exchange: int, values: Values) -> None:
        """Do nothing."""

    def applied(self, exchange: int, values: Values) -> None:
        """Do nothing."""

    def settled(self, exchange: int, values: Values, delta: Values) -> None:
        """Do nothing."""

    def missed(self, exchange: int, delta: Values) -> None:
        """Do nothing."""

    def anchored(self, exchange: int, anchor: Anchor) -> None:
        """Do nothing."""


@dataclass
class Offer:
    """A member's last offer.

    Attributes
    ----------
    exchange : int
        For which exchange; 0 if there was none.
    values : ndarray of float32, shape (slots, count), or None
        What the member held when it made it.
    step : int
        The number of its next optimizer step then.
    """

    exchange: int = 0
    values: Values | None = None
    step: int = 0


class MemberSession:
    """A member's side of its exchanges.

    Parameters
    ----------
    member : Holder
        Whose values are exchanged.
    packets : RunPackets
        How slices are read and written.
    offer : Offer
        Its last offer.
    record : Record, optional
        Where it is written down what was offered and applied; by default nowhere.
    reach : callable
        Told of the moments at which a process may die: ``offering``, ``delivered`` and ``applied``.
    keep_residual : bool
        The member keeps what its offer's dtype leaves out. Without it, it takes over what it receives as it
        is: only to see what that costs.

    Attributes
    ----------
    offer : Offer
        The last offer.
    out : bool
        Whether it is not known what became of that.
    next : int
        The exchange to offer for.
    aside : str
        Why it takes part in no exchange any more; empty as long as it does.
    exchanges : int
        How many deliveries were applied.
    """

    def __init__(
        self,
        member: Holder,
        packets: RunPackets,
        offer: Offer,
        *,
        record: Record | None = None,
        reach: Callable[[str], None] = lambda point: None,
        keep_residual: bool = True,
    ) -> None:
        self.offer = offer
        self.out = offer.exchange > member.applied
        self.next = 0
        self.aside = ""
        self.exchanges = 0
        self.record: Record = NoRecord() if record is None else record
        self._member = member
        self._packets = packets
        self._config = packets.draw.schedule.config
        self._reach = reach
        self._keep_residual = keep_residual

    def make_offer(self, exchange: int, step: int) -> bytes:
        """Offer what the member holds at an exchange's coordinates; return the packet, which is on record."""
        values = self._member.offer(exchange)
        self.offer = Offer(exchange, values, step)
        packet = self.packet()
        self._reach("offering")
        # Written down first: what is offered may be somebody else's from the moment it is sent.
        self.record.offered(exchange, values)
        self.out = True
        return packet

    def packet(self) -> bytes:
        """Return the packet of the last offer, the same each time."""
        assert self.offer.values is not None, "nothing was offered yet"
        values, chain = self.offer.values, 0
        if self._config.anchored:
            values = difference(values, self._anchor_at(self.offer.exchange))
            chain = self._anchor.chain
        return self._packets.offer(self._member.index, self.offer.exchange, values, chain)

    def apply(self, packet: bytes) -> bool:
        """Apply a delivery, once; it answers the offer that is out, if there is one.

        Returns
        -------
        bool
            False if there is none, or it was applied before.

        Raises
        ------
        NotJoinedError
            If it is of an exchange after the last offer that the member knows of: it starts anew.
        ExchangeError
            If what its exchange left out is not known any more.
        PacketError
            If it is no delivery for this member and run.
        """
        if not packet:
            return False
        if self._config.anchored:
            return self._apply_all(packet)
        member = self._member
        delivery = self._packets.read_delivery(packet, member.index)
        exchange = delivery.exchange
        mean = self._packets.draw.schedule.options_at(exchange).members_average
        values = values_after(
            delivery,
            member=member.index,
            applied=member.applied,
            offered=self.offer.exchange,
            offer=self.offer.values,
            dtype=self._config.dtype,
            mean=mean,
            # Without overlap the member still holds what it offered.
            now=member.offer(exchange) if self._config.overlap and exchange > member.applied else None,
        )
        if values is None:
            return False
        if not self._keep_residual and self.offer.values is not None:
            given = rounded(self.offer.values, self._config.dtype)
            values = taken_over(delivery.values, offered=given, dtype=self._config.dtype, mean=mean)
        self._reach("delivered")
        self.record.applied(exchange, values)
        member.deliver(exchange, values)
        self.exchanges += 1
        self.out = False
        self._reach("applied")
        return True

    def check(self, packet: bytes) -> None:
        """Raise what :meth:`apply` would raise of a member that is not what the server takes it for."""
        if packet and self._config.anchored:
            self._missed(packet)

    def welcomed(self, reply: ServerReply) -> bool:
        """Take what the server says to a hello; return whether the last offer is to be sent again.

        Raises
        ------
        NotJoinedError
            If the member is to start anew, or has to, as after :meth:`apply`.
        ExchangeError
            If the server does not let it in, or it is too old or too new to be understood.
        """
        _check_admitted(reply)
        if reply.status is not ServerStatus.WELCOME:
            raise ExchangeError(f"the server answered a hello with {reply.status}: update the older side.")
        self.next = reply.settled + 1
        self.apply(reply.packet)
        if self.out and reply.settled >= self.offer.exchange:
            self._forget_offer()  # without a delivery: alone in it, or too late for it
        return self.out

    def replied(self, reply: ServerReply) -> bool:
        """Take the reply to the offer that is out; return whether it was for the right exchange.

        Raises
        ------
        NotJoinedError, ExchangeError
            As :meth:`welcomed`.
        """
        _check_admitted(reply)
        self.apply(reply.packet)
        self._forget_offer()
        self.next = reply.settled + 1
        if reply.status is ServerStatus.ASIDE:
            self.aside = reply.reason or "set aside"
            logger.warning("member %d takes part in no exchange any more: %s", self._member.index, self.aside)
        elif reply.status is ServerStatus.REFUSED:
            logger.warning("member %d keeps its own values: %s", self._member.index, reply.reason)
        return reply.status not in AGAIN

    # Where there is an anchor

    def _apply_all(self, packet: bytes) -> bool:
        """Apply all that the member has missed; return whether there was anything."""
        parts, whole = self._missed(packet)
        for part in parts:
            if part.direction is Direction.DELIVERY:
                self._take_part(part)
            elif part.direction is Direction.MISSED:
                self._miss(part)
            else:
                self._take_anchor(part.exchange, Anchor(part.values.copy(), whole))
        return bool(parts)

    def _missed(self, packet: bytes) -> tuple[list[Part], int]:
        """Return what of a packet the member does not have, and the chain of the whole anchor if it is in it.

        Raises
        ------
        NotJoinedError
            If the member is not what the server takes it for: its disk fell back, or it has followed another
            history of the anchor.
        """
        applied = self._member.applied
        deliveries = self._packets.read_deliveries(packet, self._member.index)
        if deliveries.after > applied:
            raise NotJoinedError(
                "it fell back to a state before what it had acknowledged: it has the anchor after exchange "
                f"{applied}, and the server knows that it had the one after {deliveries.after}.",
                fell_back=True,
            )
        known = [each for each in deliveries.parts if each.exchange <= applied]
        parts = [each for each in deliveries.parts if each.exchange > applied]
        chain, reaches = deliveries.chain, deliveries.after
        for each in known:
            whole = each.direction is Direction.ANCHOR
            chain = deliveries.whole if whole else chained(chain, each.exchange, each.values)
            reaches = each.exchange
        # Of the member's own anchor nothing is said by what is older, nor by a whole one, before which
        # something is left out.
        says = parts[0].direction is not Direction.ANCHOR if parts else reaches == applied
        if says and chain != self._anchor.chain:
            raise NotJoinedError(
                f"its anchor after exchange {applied} is not the server's: one of the two goes on from an "
                "older copy.",
                fell_back=True,
            )
        return parts, deliveries.whole

    def _take_part(self, part: Part) -> None:
        """Apply the delivery of an exchange in which the member took part."""
        member, exchange, offered = self._member, part.exchange, self.offer.values
        if exchange > max(self.offer.exchange, member.applied):
            raise fell_back(self.offer.exchange, exchange)
        if exchange != self.offer.exchange or offered is None:
            raise not_known(exchange, member.index, self.offer.exchange)
        anchor = self._anchor_at(exchange)
        values = taken_part(
            member.offer(exchange),
            offered=offered,
            anchor=anchor,
            delta=part.values,
            dtype=self._config.dtype,
        )
        if not self._keep_residual:
            values = anchor + part.values
        self._reach("delivered")
        self.record.settled(exchange, values, part.values)
        member.deliver(exchange, values)
        self._anchor.move(exchange, self._packets.draw.coordinates(exchange), part.values)
        self.exchanges += 1
        self.out = False
        self._reach("applied")

    def _miss(self, part: Part) -> None:
        """Move the anchor by the D of an exchange in which the member took no part; it keeps its values."""
        self.record.missed(part.exchange, part.values)
        self._anchor.move(part.exchange, self._packets.draw.coordinates(part.exchange), part.values)
        self._is_at(part.exchange)

    def _take_anchor(self, exchange: int, anchor: Anchor) -> None:
        """Take over the whole anchor, as it is after an exchange; the member keeps its values."""
        self.record.anchored(exchange, anchor)
        self._member.anchor = anchor
        self._is_at(exchange)

    def _is_at(self, exchange: int) -> None:
        self._member.applied = exchange
        if exchange >= self.offer.exchange:
            self.out = False  # it came too late

    @property
    def _anchor(self) -> Anchor:
        anchor = self._member.anchor
        assert anchor is not None, "a member without an anchor in a run that has one"
        return anchor

    def _anchor_at(self, exchange: int) -> Values:
        return self._anchor.at(self._packets.draw.coordinates(exchange))

    def _forget_offer(self) -> None:
        """Take note that nothing comes of the offer that was out, if it was not answered by a delivery.

        The member trains on. Were it saved with that offer, it would send it once more after a restart, as
        one that is out, for an exchange that may still be open: values that it does not hold any more.
        """
        self.out = False
        if self.offer.exchange > self._member.applied:
            self.offer = Offer(self._member.applied)


def _check_admitted(reply: ServerReply) -> None:
    if reply.status is ServerStatus.ANEW:
        raise NotJoinedError(reply.reason, fell_back=True)
    if reply.status is ServerStatus.DENIED:
        raise ExchangeError(f"the server does not let this member in: {reply.reason}")
