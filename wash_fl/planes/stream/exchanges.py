"""A round whose members exchange over streams while it lasts."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Self

from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow, Settlement
from wash_fl.core.gauge import Gauge
from wash_fl.core.journal import Journal
from wash_fl.planes.clock import Clock
from wash_fl.planes.roster import Roster
from wash_fl.planes.stream.counting import Counted
from wash_fl.planes.stream.hub import Giving, Hub
from wash_fl.planes.stream.place import Place
from wash_fl.planes.stream.service import Service
from wash_fl.planes.stream.ticket import Ticket

SAMPLE_SECONDS = 1.0
"""How often the kernel is asked what the connections have carried."""

RESTART_SECONDS = 120.0
"""How long a member with an offer out waits for a server that is started again."""


@dataclass(frozen=True)
class ExchangeReport:
    """What happened in an exchange.

    Attributes
    ----------
    settlement : Settlement
        Who took part, and how far apart the members are.
    seconds : float
        From its first offer until it was settled.
    bytes : dict of str to list of int
        By member, since the exchange before: payload (values) and protocol (the rest of the messages) up,
        then the same down. What a delivery carried counts where it travelled: after its exchange.
    """

    settlement: Settlement
    seconds: float
    bytes: dict[str, list[int]]


OnExchange = Callable[[ExchangeReport], None]


class OverStreams:
    """The stream plane: gRPC beside Flower, in the ServerApp's process.

    Parameters
    ----------
    run : bytes
        Identity of the run.
    draw : Draw
        Its coordinates.
    escrow, roster, journal
        The server's record.
    place : Place
        Where to serve.
    members : int
        Size of the ensemble.
    deadline : float
        Seconds an exchange waits for members that are expected in that time.
    patience : float
        Seconds a round's first exchange waits for members that have not called yet.
    clock : Clock
        What the strategy would wait by.
    on_exchange : callable
        Told of each settled exchange.

    Attributes
    ----------
    clock : Clock
        Lets the streams have the record while the strategy waits.
    counted : Counted
        The streams' bytes.
    """

    def __init__(
        self,
        run: bytes,
        draw: Draw,
        escrow: Escrow,
        roster: Roster,
        journal: Journal,
        *,
        place: Place,
        members: int,
        deadline: float,
        patience: float,
        clock: Clock,
        on_exchange: OnExchange = lambda report: None,
    ) -> None:
        self.counted = Counted()
        self._escrow = escrow
        self._roster = roster
        self._journal = journal
        self._place = place
        self._patience = deadline + RESTART_SECONDS
        self._on_exchange = on_exchange
        self._settled: dict[int, None] = {}
        self._aside: dict[int, str] = {}
        self._gauge: Gauge | None = None
        self._sampled = 0.0
        self._hub = Hub(
            run,
            draw,
            escrow,
            roster,
            journal,
            deadline=deadline,
            patience=patience,
            on_settled=self._took_place,
        )
        self._service = Service(self._hub, place, members=members, counted=self.counted)
        self.clock: Clock = Giving(clock, self._hub)

    def __enter__(self) -> Self:
        if self._roster.active():
            # Members whose server died in the middle of a round call again before they are asked again.
            self._hub.begin(self._roster.active())
        self._service.__enter__()
        self._hub.lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.lock.release()
        self._service.__exit__()

    def fields(self, member: int, delivery: bytes) -> dict[str, Any]:
        """Return the ticket for the stream, on which what waits is delivered."""
        del delivery
        ticket = Ticket(self._service.address, self._place.authority, self._hub.token(member), self._patience)
        return {"delivery": b"", **ticket.fields()}

    def begin(self, number: int, asked: Collection[int]) -> None:
        """Let the members of the round exchange."""
        del number
        self._settled.clear()
        self._aside.clear()
        self._gauge = None
        self._hub.begin(asked)

    def end(self, number: int) -> Settlement:
        """Settle what is open, and record the end of the round."""
        self._hub.end()
        self._escrow.record_acknowledged()
        self._journal.ended(number)
        members = tuple(sorted(self._settled))
        absent = tuple(sorted(set(self._roster.active()) - self._settled.keys()))
        return Settlement(self._escrow.settled, members, absent, self._gauge, dict(self._aside))

    def _took_place(self, settlement: Settlement, seconds: float) -> None:
        self._settled |= dict.fromkeys(settlement.members)
        self._aside |= settlement.aside
        self._gauge = settlement.gauge or self._gauge
        if time.monotonic() - self._sampled > SAMPLE_SECONDS:
            # Before a connection is gone, and with it what the kernel knows of it.
            self._sampled = time.monotonic()
            self.counted.sample()
        self._on_exchange(ExchangeReport(settlement, seconds, self.counted.row()))
