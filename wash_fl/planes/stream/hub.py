"""The server's side of the stream plane, without a network: who calls, what it offers, what it is told.

One lock guards it, and with it the escrow, the roster and the journal: calls come from the thread that serves
the streams, and from that of the strategy (:class:`Giving`).
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from wash_fl.core.codec import encoded_size
from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow, Settlement, Verdict
from wash_fl.core.gathering import Gathering
from wash_fl.core.journal import Journal, Standing
from wash_fl.core.packet import PacketError
from wash_fl.core.run_packets import RunPackets
from wash_fl.faults import points
from wash_fl.planes.clock import Clock
from wash_fl.planes.records import printable
from wash_fl.planes.roster import Roster
from wash_fl.planes.stream.wire import VERSION, Answer, Status, longest_packet

logger = logging.getLogger("flwr.wash_fl")

Tell = Callable[[Answer], None]


@dataclass(frozen=True)
class Greeting:
    """A hello, as it came: nothing in it is checked yet."""

    version: int
    run: bytes
    layout: bytes
    member: int
    token: bytes
    round: int
    applied: int
    initial: str
    incarnation: int


class Hub:
    """Lets members in, takes their offers, and settles exchanges when they are due.

    Parameters
    ----------
    run : bytes
        Identity of the run.
    draw : Draw
        The coordinates of the run's exchanges.
    escrow, roster, journal
        The server's record.
    deadline, patience : float
        See :class:`~wash_fl.core.gathering.Gathering`.
    on_settled : callable
        Told of each settled exchange and how many seconds it took from its first offer.
    now : callable
        Seconds on a clock that never goes back.

    Attributes
    ----------
    lock : RLock
        Held by whoever uses the escrow, the roster or the journal.
    now : callable
        The clock.
    failure : BaseException or None
        What ended the hub; nothing more is settled then.
    on_change : callable
        Called when :meth:`due` may be another.
    """

    def __init__(
        self,
        run: bytes,
        draw: Draw,
        escrow: Escrow,
        roster: Roster,
        journal: Journal,
        *,
        deadline: float,
        patience: float,
        on_settled: Callable[[Settlement, float], None] = lambda settlement, seconds: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.RLock()
        self.failure: BaseException | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._run = run
        self._draw = draw
        self._escrow = escrow
        self._roster = roster
        self._secret = journal.secret
        self._packets = RunPackets(run, draw)
        self._gathering = Gathering(deadline, patience)
        self._on_settled = on_settled
        self.now = now
        self._waiting: dict[int, Tell] = {}
        self._open = False
        self._first = 0.0

    def token(self, member: int) -> bytes:
        """Return what a member proves itself by; it travels inside Flower's authenticated message."""
        content = self._run + member.to_bytes(4, "little")
        return hmac.new(self._secret, content, "sha256").digest()

    @property
    def longest_offer(self) -> int:
        """Bytes that a packet for the next exchange may have."""
        with self.lock:
            slots, count = len(self._draw.layout.slots), self._draw.count(self._escrow.settled + 1)
        return longest_packet(encoded_size(self._draw.schedule.config.dtype, slots, count))

    # What the strategy does

    def begin(self, members: Collection[int]) -> None:
        """Begin a round among ``members``."""
        with self.lock:
            self._gathering.begin(members, self.now())
        self.on_change()

    def end(self) -> None:
        """End the round: settle what is open, and wait for nobody."""
        with self.lock:
            self._gathering.end()
            self._settle_if_due()
        self.on_change()

    # What members do

    def hello(self, greeting: Greeting) -> Answer:
        """Let a member in, or say why not."""
        with self.lock:
            refused = self._refusal(greeting)
            if refused is not None:
                return refused
            member = greeting.member
            if reason := self._roster.astray(member, greeting):
                return self._answer(Status.ANEW, reason=reason)
            if greeting.applied > self._escrow.settled:
                return self._answer(
                    Status.DENIED,
                    reason=f"it has applied exchange {greeting.applied}, which is not settled here: the "
                    "journal is an older copy.",
                )
            self._roster.acknowledge(member, greeting.applied, lazily=True)
            self._gathering.called(member, self.now())
            return self._answer(Status.WELCOME, member)

    def offer(self, member: int, exchange: int, applied: int, packet: bytes, tell: Tell) -> None:
        """Take a member's offer; ``tell`` is called with the answer, now or when the exchange is settled."""
        with self.lock:
            answer = self._offered(member, exchange, applied, packet)
            if answer is not None:
                self._gathering.told(member, self.now())
                tell(answer)
                return
            self._waiting[member] = tell
            self._settle_if_due()

    def farewell(self, member: int, applied: int) -> None:
        """Take note that a member has ended its round."""
        with self.lock:
            self._acknowledge(member, applied)
            self._gathering.left(member)
            self._settle_if_due()

    def lost(self, member: int) -> None:
        """Take note that a member's call is broken; an offer of it stays."""
        with self.lock:
            self._waiting.pop(member, None)
            self._gathering.lost(member)

    def due(self) -> float | None:
        """Return when the open exchange is to be settled, by the clock; None if none is open."""
        with self.lock:
            return self._gathering.due() if self._open else None

    def settle_if_due(self) -> None:
        """Settle the open exchange if nobody is awaited any more."""
        with self.lock:
            self._settle_if_due()

    def _refusal(self, greeting: Greeting) -> Answer | None:
        """Return why a caller is not let in; what is wrong is not said to one without the token."""
        proven = hmac.compare_digest(greeting.token, self.token(greeting.member))
        if greeting.version != VERSION:
            reason = f"version {greeting.version}, and this server has {VERSION}: update the older side."
        elif greeting.run != self._run:
            reason = "it is of another run."
        elif not proven:
            reason = "its token is not that of this run and member: it comes with the train message."
        elif greeting.layout != self._draw.layout.fingerprint:
            reason = "its model is another."
        elif greeting.member not in self._roster.active():
            reason = f"member {greeting.member} is not of this run, or not any more."
        else:
            return None
        logger.warning("a call that says it is of member %d is not let in: %s", greeting.member, reason)
        return self._answer(Status.DENIED, reason=reason)

    def _offered(self, member: int, exchange: int, applied: int, packet: bytes) -> Answer | None:
        """Hand an offer to the escrow; None if the answer is that of the exchange."""
        self._acknowledge(member, applied)
        settled = self._escrow.settled
        if exchange != settled + 1:
            return self._answer(Status.LATE if exchange <= settled else Status.EARLY, member)
        try:
            values = self._packets.read_offer(packet, member, exchange)
        except PacketError as error:
            logger.warning("member %d: %s It keeps its own values", member, error)
            return self._answer(Status.REFUSED, reason=printable(str(error)))
        if not self._open:
            self._escrow.open(exchange, self._roster.active())
            self._open, self._first = True, self.now()
        verdict = self._escrow.offer(member, exchange, values)
        if verdict is Verdict.UNDELIVERED:
            return self._answer(Status.UNDELIVERED, member)
        if verdict not in (Verdict.ACCEPTED, Verdict.DUPLICATE):
            return self._answer(Status.ASIDE, reason=self._roster.left_out().get(member, str(verdict)))
        self._gathering.offered(member, self.now())
        try:
            points.reach("offered", exchange=exchange)
        except BaseException as error:  # as if the process had died
            self.failure = error
            raise
        return None

    def _settle_if_due(self) -> None:
        due = self._gathering.due() if self._open else None
        if due is None or due > self.now() or self.failure is not None:
            return
        try:
            self._settle()
        except BaseException as error:
            self.failure = error
            raise

    def _settle(self) -> None:
        missing = self._gathering.settled(self.now())
        settlement = self._escrow.settle()
        self._open = False
        points.reach("settled", exchange=settlement.exchange)
        for member in missing:
            logger.info("exchange %d: member %d missed the deadline", settlement.exchange, member)
        for member, reason in settlement.aside.items():
            self._roster.drop(member, Standing.SET_ASIDE, reason)
            self._gathering.left(member)
        waiting, self._waiting = self._waiting, {}
        for member, tell in waiting.items():
            if member in settlement.aside:
                tell(self._answer(Status.ASIDE, reason=settlement.aside[member]))
            else:
                took_part = self._escrow.delivery(member) is not None
                tell(self._answer(Status.DELIVERED if took_part else Status.ALONE, member))
        self._on_settled(settlement, self.now() - self._first)

    def _acknowledge(self, member: int, applied: int) -> None:
        if member in self._roster and applied <= self._escrow.settled:
            self._roster.acknowledge(member, applied, lazily=True)

    def _answer(self, status: Status, member: int | None = None, *, reason: str = "") -> Answer:
        """Return an answer, with what waits for a member."""
        packet = b"" if member is None else self._packets.delivery(member, self._escrow.delivery(member))
        return Answer(status, self._escrow.settled, packet, reason)


class Giving(Clock):
    """A clock whose sleeper lets a hub have the lock that it holds, and hears of the hub's end."""

    def __init__(self, clock: Clock, hub: Hub) -> None:
        self._clock = clock
        self._hub = hub

    def now(self) -> float:
        """Return seconds since some moment in the past."""
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        """Let time pass, and the hub work.

        Raises
        ------
        BaseException
            What ended the hub: a journal that cannot be written, say.
        """
        self._hub.lock.release()
        try:
            self._clock.sleep(seconds)
        finally:
            self._hub.lock.acquire()
        if self._hub.failure is not None:
            raise self._hub.failure
