"""Every decision of a run's server: who joins, who is asked, how long it waits, what is settled and averaged.

Events go in, commands come out (:mod:`wash_fl.protocol.messages`); the time is an argument, and everything
that must outlive the server is in the journal before a command says so. Whoever carries the messages, Flower,
gRPC, a process without either, or a search for faults, carries these.
"""

import logging
from collections.abc import Mapping
from typing import Final

from wash_fl.core.draw import Draw
from wash_fl.core.layout import Layout
from wash_fl.core.plane import plane_of
from wash_fl.errors import RunError
from wash_fl.protocol.commands import Command
from wash_fl.protocol.escrow import Escrow
from wash_fl.protocol.events import CallLost, Event, Farewell, Hello, Nodes, Offered, Replied
from wash_fl.protocol.exchanges import Exchanges
from wash_fl.protocol.final_collection import FinalCollection
from wash_fl.protocol.joining import Joining
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Values
from wash_fl.protocol.membership import Membership
from wash_fl.protocol.messages import SILENT, Answer, Failure, Kind, Request, Start, Status
from wash_fl.protocol.once_per_round import OncePerRound
from wash_fl.protocol.options import ServerOptions
from wash_fl.protocol.over_streams import OverStreams
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.presence import FEWEST, Presence
from wash_fl.protocol.requests import LATE, Requests
from wash_fl.protocol.rounds import Rounds
from wash_fl.protocol.state import ServerState
from wash_fl.protocol.terms import Terms, run_identity
from wash_fl.protocol.turn import Flow, Turn

logger = logging.getLogger("flwr.wash_fl")

PLANES: Final[Mapping[str, type[Exchanges]]] = {"round": OncePerRound, "stream": OverStreams}
"""How exchanges come about, by the option exchange-plane."""


class Coordinator:
    """A run's server, from its start to its end, or until it dies.

    Parameters
    ----------
    terms : Terms
        What the run agrees on.
    layout : Layout
        What is exchanged.
    journal : Journal
        Where decisions are recorded, and from where they are restored. It belongs to this object.
    options : ServerOptions
        What it decides by.
    now : float
        When it begins.
    first : ndarray of float32, shape (slots, size), optional
        The anchor that the run begins with (:func:`wash_fl.core.anchor.first_anchor`), if it has one.

    Attributes
    ----------
    run : bytes
        Identity of the run.
    state : ServerState
        What it knows.
    exchanges : Exchanges
        How exchanges come about.
    joining : Joining
        How members join.
    rounds : Rounds
        How members train.
    collection : FinalCollection
        How they hand in their models.
    done : bool
        Whether there is nothing more to do.
    """

    def __init__(
        self,
        terms: Terms,
        layout: Layout,
        journal: Journal,
        options: ServerOptions,
        *,
        now: float = 0.0,
        first: Values | None = None,
    ) -> None:
        self.run = run_identity(terms)
        self.done = False
        self._terms = terms
        self._options = options
        self._turn = Turn(now)
        self._until = now
        plane = PLANES[terms.exchange.exchange_plane]
        packets = RunPackets(self.run, Draw(terms.seed, layout, terms.schedule))
        often = not plane_of(terms.exchange).once_per_round
        escrow = Escrow(
            packets.draw, terms.exchange, journal, options.outlier_factor, often=often, first=first
        )
        self.state = ServerState(
            self._turn,
            terms,
            options,
            packets,
            journal,
            escrow,
            Membership(journal, escrow, plane.rounds(journal, escrow)),
            Requests(self._turn, options.start_timeout),
        )
        self.exchanges: Exchanges = plane(self.state)
        self.joining = Joining(self.state)
        self._presence = Presence(self.state, self.joining)
        self.rounds = Rounds(self.state, self.joining, self._presence, self.exchanges)
        self.collection = FinalCollection(self.state)
        self._escrow = escrow
        self._membership = self.state.membership
        self._requests = self.state.requests
        self._flow: Flow = self._job()
        self.exchanges.resume(self._membership.active(), now)

    def handle(self, event: Event, *, now: float) -> list[Command]:
        """Take an event, record what is decided, and return what is to be done.

        Raises
        ------
        RunError
            If the run cannot go on: too few members join or take part.
        StateError
            If the journal cannot be written.
        """
        self._turn.now = now
        if isinstance(event, Nodes):
            self._turn.connected = event.nodes
        elif isinstance(event, Replied):
            self._replied(event)
        elif isinstance(event, Hello | Offered | Farewell | CallLost):
            self._turn.commands += self.exchanges.handle(event, now)
        else:
            self._turn.commands += self.exchanges.settle_if_due(now)
        return self._turn.take_commands()

    def proceed(self, *, now: float) -> list[Command]:
        """Go on with the job as far as it goes by itself: all replies that have come were told.

        Raises
        ------
        RunError, StateError
            As :meth:`handle`.
        """
        self._turn.now = now
        self._requests.send_again()
        for request, failure in self._requests.given_up():
            self._final(request, Replied(request.number, failure))
        self._requests.remind(self._late)
        for request in self._requests.expired():
            if request.kind is not Kind.TRAIN:  # its round is over, or ends without it
                self._final(request, Replied(request.number, SILENT))
        try:
            self._until = next(self._flow)
        except StopIteration:
            self.done = True
        return self._turn.take_commands()

    def next_deadline(self) -> float:
        """Return until when, by the clock, nothing is done unless something comes."""
        return self._until

    def outstanding(self) -> list[Request]:
        """Return the requests that are not answered yet."""
        return self._requests.outstanding()

    def is_out(self, number: int) -> bool:
        """Return whether a request is not answered yet."""
        return any(each.number == number for each in self._requests.outstanding())

    def dismiss(self) -> None:
        """Let the members remove their state of this run, once :meth:`proceed` goes on: it is over."""
        self._requests = Requests(self._turn, fences=self._requests.fences)
        self._flow = self._farewells()
        self.done = False

    # What comes

    def _replied(self, event: Replied) -> None:
        failure = event.answer if isinstance(event.answer, Failure) else None
        request = self._requests.replied(event.number, failure)
        if request is not None:
            self._final(request, event)

    def _final(self, request: Request, event: Replied) -> None:
        """Take the last word on a request."""
        answer = event.answer
        _log(request, answer)
        if request.kind is Kind.TRAIN:
            self.rounds.replied(request, event)
        elif request.kind is Kind.JOIN:
            self.joining.answered(request, answer)
        elif request is self.joining.donation:  # and not its reply once more
            self.joining.donated(answer, event.model)
        elif request.kind is Kind.COLLECT:
            self.collection.answered(request, answer, event.model)

    # The job

    def _job(self) -> Flow:
        yield from self._nodes_come()
        yield from self._members_join()
        for number in range(self._membership.rounds + 1, self._terms.rounds + 1):
            logger.info("[ROUND %d/%d]", number, self._terms.rounds)
            yield from self._presence.gather(number)
            yield from self.rounds.train(number)
        yield from self._presence.assemble(self._options.start_timeout)
        yield from self.collection.collect()

    def _nodes_come(self) -> Flow:
        """Wait for as many nodes as the run wants; after ``start_timeout``, for as many as are enough."""
        options, active = self._options, len(self._membership.active())
        wanted = active or options.min_members or self._terms.members
        self._enough = options.min_members or (FEWEST if active else self._terms.members)
        self._wanted = min(wanted, self._enough)
        if active:
            logger.info(
                "the journal has %d settled exchanges of this run: going on after them", self._escrow.settled
            )
        deadline = self._turn.now + options.start_timeout
        announced = -1
        while True:
            count, late = len(self._turn.connected), self._turn.now >= deadline
            if count >= wanted or (late and count >= self._enough):
                return
            if late:
                raise RunError(
                    f"{count} of {wanted} clients connected within {options.start_timeout:g} s: start the "
                    f"others (in a simulation: --federation-config num-supernodes={wanted}), or lower "
                    "min-members."
                )
            if count != announced:
                logger.info("waiting for clients: %d of %d are connected", count, wanted)
                announced = count
            yield deadline

    def _members_join(self) -> Flow:
        """Make members of the nodes that are connected at the beginning, or again after a restart."""
        resumed = bool(self._membership.active() or self._escrow.settled)
        nodes = sorted(self._turn.connected)
        if resumed:
            yield from self._requests.until_answered(map(self.joining.meet, nodes))
            nodes = list(self.joining.newcomers.values())
        if not self._escrow.settled:
            self.joining.newcomers.clear()
            start = Start(self._options.initial)
            yield from self._requests.until_answered(self.joining.meet(node, start) for node in nodes)
        met = len(self._membership.nodes) + len(self.joining.newcomers)
        if met < self._wanted:
            raise RunError(f"{met} of {self._wanted} members joined: {self.joining.why()}.")
        how = "go on" if resumed else "joined, with the same initial weights"
        logger.info("members %s %s", sorted(self._membership.nodes), how)

    def _farewells(self) -> Flow:
        nodes = sorted(self._membership.nodes.items())
        timeout = self._options.timeout
        yield from self._requests.until_answered(
            self._requests.ask(Kind.LEAVE, node, timeout, member=member) for member, node in nodes
        )

    def _late(self, request: Request) -> float:
        """Return after how many seconds the answer to a request is late."""
        return self.rounds.deadline.late(request.member) if request.kind is Kind.TRAIN else LATE


def _log(request: Request, answer: Answer | Failure) -> None:
    """Say of an answer that is not what was asked for."""
    who = request.who
    what = f"round {request.round}" if request.kind is Kind.TRAIN else str(request.kind)
    if answer is SILENT:
        logger.warning("%s: no reply to %s in time", who, what)
    elif isinstance(answer, Failure):
        code = f" (code {answer.code})" if answer.code else ""
        logger.warning("%s: %s failed: %s%s", who, what, answer.reason, code)
    elif answer.status is Status.REFUSED:
        logger.warning("%s refused %s: %s", who, what, answer.reason)
    elif answer.status is Status.UNMET:
        logger.warning("%s did not do %s: %s It is asked again who it is", who, what, answer.reason)
    elif answer.status is Status.NOT_JOINED:
        logger.info("%s holds no state of this run", who)
