"""The server's part of an exchange: it takes offers, decides, and hands out deliveries.

Who swaps with whom is decided only after the offers are in, among those who offered; a member that is
lost before that is simply not part of the exchange. From then on its delivery waits until the member
acknowledges it. Between its offer and the delivery a member's own values at those coordinates count for
nothing; in this sense every value is at all times held exactly once, by a member or by the escrow.

Settling an exchange has an order: outliers are set aside, the rest is mixed, the journal records it, and only
then can anybody see it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.gauge import Gauge, measure
from wash_fl.core.mix import mix
from wash_fl.core.schedule import options_at
from wash_fl.errors import ExchangeError
from wash_fl.protocol.anchored import Anchored, Missed
from wash_fl.protocol.distances import grain_of
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Delivery
from wash_fl.protocol.messages import ServerStatus
from wash_fl.protocol.outliers import EXACT, find_outliers
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.parts import Parts

Values = NDArray[np.float32]

GAUGE_EVERY: Final = 16
"""Exchanges between two measurements of the members' distance, where they are many."""


@dataclass(frozen=True)
class Settlement:
    """The outcome of an exchange.

    Attributes
    ----------
    exchange : int
        Its number.
    members : tuple of int
        Who offered, in order; fewer than two keep their own values.
    absent : tuple of int
        Who was expected and did not offer.
    gauge : Gauge or None
        Estimated distance between the members; None with fewer than two offers, without coordinates, or
        when it was not the time to measure it.
    aside : dict of int to str
        Who offered values too far from the others', and the reason; they keep their own values.
    """

    exchange: int
    members: tuple[int, ...]
    absent: tuple[int, ...]
    gauge: Gauge | None
    aside: dict[int, str] = field(default_factory=dict)


class Escrow:
    """Takes the offers of one exchange at a time and keeps deliveries until they are acknowledged.

    Parameters
    ----------
    draw : Draw
        The coordinates of the run's exchanges.
    config : ExchangeConfig
        Its ``mix`` and ``topology``, and ``average_from``, when they change.
    journal : Journal, optional
        Where decisions are recorded, and from where they are restored; in memory by default.
    outlier_factor : float
        How many times farther than usual a member's values may lie from the others'
        (:mod:`wash_fl.protocol.outliers`); 0 allows any.
    often : bool
        Exchanges are so many that the distance between the members is measured only every ``GAUGE_EVERY``,
        and outliers are looked for only if a cheap screen finds one possible.
    first : ndarray of float32, shape (slots, size), optional
        The anchor that the run begins with; a run of differences to an anchor needs it.

    Attributes
    ----------
    settled : int
        The last exchange that was settled; 0 before the first.
    """

    def __init__(
        self,
        draw: Draw,
        config: ExchangeConfig,
        journal: Journal | None = None,
        outlier_factor: float = 0.0,
        *,
        often: bool = False,
        first: Values | None = None,
    ) -> None:
        self._draw = draw
        self._config = config
        self._outlier_factor = outlier_factor
        self._gauge_every = GAUGE_EVERY if often else 1
        self._exact = 0 if often else EXACT
        self._journal = Journal.in_memory() if journal is None else journal
        self.settled, self._pending = self._journal.restore()
        self._open = 0
        self._expected: frozenset[int] = frozenset()
        self._offers: dict[int, Values] = {}
        self._acknowledged: dict[int, int] = {}
        self._anchored: Anchored | None = None
        if config.anchored:
            assert first is not None, "a run of differences to an anchor begins with none"
            self._anchored = Anchored(draw, config, self._journal, first)

    def open(self, exchange: int, members: Collection[int]) -> None:
        """Begin an exchange among ``members``; the one before must be settled.

        Raises
        ------
        ExchangeError
            If another exchange is open, or this is not the one after the last that was settled.
        """
        if self._open:
            raise ExchangeError(f"exchange {self._open} is still open: settle it before opening {exchange}.")
        if exchange != self.settled + 1:
            # Were one skipped and opened later, its old offers would overwrite what was learned since.
            raise ExchangeError(f"exchange {exchange} cannot be opened: the next is {self.settled + 1}.")
        self._open, self._expected = exchange, frozenset(members)

    def offer(self, member: int, exchange: int, values: Values, chain: int = 0) -> ServerStatus | None:
        """Take a member's values, shape (slots, count), at the coordinates of an exchange.

        ``chain`` is that of the anchor to which they are differences; without an anchor nobody looks at it.

        Returns
        -------
        ServerStatus or None
            Why the offer is not in the exchange: it is ``LATE``, ``EARLY``, of a member that was not asked
            (``ASIDE``), of one that has not applied its last delivery (``UNDELIVERED``), or of one whose
            anchor is another, so that it has to start ``ANEW``. None if it is in, or if the member's offer
            was in before: of two the first counts.

        Raises
        ------
        ExchangeError
            If the values are not of the exchange's shape.
        """
        if exchange <= self.settled:
            return ServerStatus.LATE
        if exchange != self._open:
            return ServerStatus.EARLY
        if member not in self._expected:
            return ServerStatus.ASIDE
        if member in self._offers:
            return None
        if self.owes(member):
            return ServerStatus.UNDELIVERED
        if self._anchored is not None and chain != self._anchored.anchor.chain:
            return ServerStatus.ANEW
        expected = (len(self._draw.layout.slots), self._draw.count(exchange))
        if values.shape != expected:
            raise ExchangeError(
                f"an offer of shape {values.shape} for exchange {exchange}; it must be {expected}."
            )
        self._offers[member] = values
        return None

    @property
    def offered(self) -> frozenset[int]:
        """The members whose offers are in, in the open exchange: at its coordinates these count, not they."""
        return frozenset(self._offers)

    @property
    def complete(self) -> bool:
        """Whether every expected member has offered."""
        return bool(self._open) and len(self._offers) == len(self._expected)

    def settle(self) -> Settlement:
        """Close the open exchange: mix the offers among those who offered, and record the deliveries."""
        if not self._open:
            raise ExchangeError("no exchange is open: open one before settling it.")
        exchange = self._open
        gauges = exchange % self._gauge_every == 0 or exchange == 1
        held = self._offers
        if self._anchored is not None and (gauges or self._outlier_factor > 0):
            held = self._anchored.beyond(exchange, self._offers)
        aside = self._outliers(exchange, held)
        members = tuple(sorted(self._offers.keys() - aside.keys()))
        offers = {member: self._offers[member] for member in members}
        deliveries: dict[int, Delivery] = {}
        gauge = move = change = None
        if len(offers) > 1 and offers[members[0]].size:
            if gauges:
                values = [held[member] for member in members]
                gauge = measure(self._draw.layout, self._draw.coordinates(exchange), values)
            received: Sequence[Values]
            if self._anchored is None:
                values = list(offers.values())
                options = options_at(self._config, exchange, self._draw.schedule.exchanges)
                received = mix(values, seed=self._draw.seed, exchange=exchange, config=options)
            else:
                move = self._anchored.outcome(exchange, list(offers.values()))
                received = [] if move is None else [move.delta] * len(members)
            deliveries = {
                member: Delivery(exchange, each) for member, each in zip(members, received, strict=False)
            }
        assert not deliveries.keys() & self._pending.keys(), "a delivery would replace one that waits"
        if self._anchored is not None:
            waiting = {each.exchange for each in self._pending.values()}
            change = self._anchored.change(exchange, move, waiting, self._acknowledged)
        # Written down first: a decision that could be lost must not be heard of.
        self._journal.settled(exchange, deliveries, offers, self._acknowledged, change)
        self._acknowledged = {}
        if self._anchored is not None and change is not None:
            self._anchored.changed(exchange, move, change)
            deliveries = {member: each.without_values() for member, each in deliveries.items()}
        self._pending.update(deliveries)
        absent = tuple(sorted(self._expected - self._offers.keys()))
        self.settled, self._open, self._expected, self._offers = exchange, 0, frozenset(), {}
        return Settlement(exchange, members, absent, gauge, aside)

    def _outliers(self, exchange: int, held: Mapping[int, Values]) -> dict[int, str]:
        """Return who is set aside because of what it holds, and why."""
        if self._outlier_factor <= 0:
            return {}
        parts = Parts.of(self._draw.selection(exchange))
        grain = grain_of(list(self._offers.values()), self._config.dtype, parts)
        return find_outliers(held, self._outlier_factor, self._exact, parts, grain)

    def delivery(self, member: int) -> Delivery | None:
        """Return what waits for a member, again and again until it is acknowledged.

        Where differences to an anchor travel, it has no values: :meth:`missed` does.
        """
        return self._pending.get(member)

    def owes(self, member: int) -> bool:
        """Return whether a member needs something before it offers again."""
        return member in self._pending or (self._anchored is not None and self._anchored.is_behind(member))

    def missed(self, member: int) -> Missed:
        """Return what has moved the anchor since a member knew it, all of which it needs to offer again."""
        assert self._anchored is not None, "there is no anchor"
        waiting = self._pending.get(member)
        return self._anchored.missed(member, self.settled, None if waiting is None else waiting.exchange)

    def packet(self, packets: RunPackets, member: int) -> bytes:
        """Return the packet that waits for a member; empty if none does."""
        waiting = self._pending.get(member)
        if self._anchored is None:
            return packets.delivery(member, waiting)
        return packets.deliveries(member, self.missed(member), None if waiting is None else waiting.exchange)

    def start(self, packets: RunPackets, member: int) -> bytes:
        """Return what a member needs besides the weights it starts from: the anchor; empty without one."""
        if self._anchored is None:
            return b""
        return packets.deliveries(member, self._anchored.start(self.settled), None)

    def acknowledge(self, member: int, applied: int, *, sync: bool = True) -> None:
        """Take note that the last delivery a member applied was of exchange ``applied``.

        One that is not settled cannot have been applied: such a number is ignored, and the member's delivery
        goes on waiting.

        Parameters
        ----------
        member, applied : int
            Who, and up to which exchange.
        sync : bool
            Record it at once. Otherwise it is recorded with the next exchange that is settled: after a crash
            before that the delivery waits again, and the member acknowledges it again.
        """
        waiting = self._pending.get(member)
        if waiting is not None and waiting.exchange <= applied <= self.settled:
            if not sync:
                self._acknowledged[member] = applied
            else:
                self._journal.acknowledged(member, applied)
            del self._pending[member]
        anchored = self._anchored
        if anchored is not None and anchored.applied(member) < applied <= self.settled:
            anchored.acknowledge(member, applied)
            # Recorded with the next exchange: what it has missed may be sent twice.
            if self._journal.applied(member) < applied:
                self._acknowledged[member] = applied

    def record_acknowledged(self) -> None:
        """Record now what was acknowledged and not recorded yet."""
        while self._acknowledged:
            member, applied = next(iter(self._acknowledged.items()))
            self._journal.acknowledged(member, applied)
            del self._acknowledged[member]

    def release(self, member: int) -> None:
        """Drop what a member has in the escrow, for good: it is given up, set aside, or joins anew.

        Its offer in the open exchange goes, too, and it is not expected there any more: whatever still
        arrives is of the member that it was. Record its new standing in the journal first; a server that
        dies between the two then releases it when it is back.
        """
        self._journal.released(member)
        self._acknowledged.pop(member, None)
        self._pending.pop(member, None)
        self._offers.pop(member, None)
        self._expected -= {member}
        if self._anchored is not None:
            self._anchored.release(member)
