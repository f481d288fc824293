"""A member's exchanges while it trains: every few optimizer steps it offers a slice, and hears its fate.

It hooks into the optimizer, so a training loop needs no change. Without overlap a step begins only after the
verdict on the offer before it; with overlap the slice of one step travels while the next is computed.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol

from wash_fl.config import ExchangeConfig
from wash_fl.core.codec import taken_over
from wash_fl.core.run_packets import RunPackets
from wash_fl.errors import ExchangeError
from wash_fl.faults import points
from wash_fl.member.log import ExchangeLog, Kind
from wash_fl.member.member import Member
from wash_fl.member.parameters import Values

logger = logging.getLogger("flwr.wash_fl")

ATTEMPTS: Final = 3
"""Offers that a member makes at one step, if it comes too late for the ones before."""


class LineLostError(Exception):
    """The connection to the server is broken, or was not made."""


class Outcome(Enum):
    """What the server says, as far as a member has to tell it apart."""

    WELCOME = auto()  # the answer to a hello
    SETTLED = auto()  # the exchange is settled; a delivery comes with it if there is one
    AGAIN = auto()  # the offer was for another exchange than the next
    KEPT = auto()  # the offer is refused, the member keeps its values
    ASIDE = auto()  # it takes part in no exchange any more


@dataclass(frozen=True, eq=False)
class Heard:
    """An answer to a hello or an offer.

    Attributes
    ----------
    outcome : Outcome
        What became of the offer.
    settled : int
        The last exchange that is settled.
    packet : bytes
        What waits for the member; empty if nothing does.
    reason : str
        For people.
    """

    outcome: Outcome
    settled: int
    packet: bytes = b""
    reason: str = ""


class Line(Protocol):
    """The member's connection to the server, for one round."""

    def connect(self, applied: int) -> Heard:
        """Call the server and say hello; return its welcome.

        Raises
        ------
        LineLostError
            If it cannot be reached.
        ExchangeError
            If it does not let the member in.
        """

    def send(self, exchange: int, applied: int, packet: bytes) -> None:
        """Send an offer."""

    def receive(self) -> Heard:
        """Return the answer; raises :class:`LineLostError` if the connection breaks or stays silent."""

    def close(self, applied: int) -> None:
        """Say farewell and hang up."""

    def cut(self) -> None:
        """Break the connection, as a network does: for tests."""

    @property
    def connected(self) -> bool:
        """Whether the server was reached, and the connection is not known to be broken."""

    @property
    def patience(self) -> float:
        """Seconds for which a member with an offer out calls again before it gives the round up."""


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


class Exchanging:
    """Exchanges for one round; a context that hooks into the member's optimizer.

    Parameters
    ----------
    member : Member
        Whose parameters are exchanged.
    line : Line
        To the server.
    log : ExchangeLog
        Where it is written down what was given and got.
    run : bytes
        Identity of the run.
    config : ExchangeConfig
        How often, in which dtype, with overlap or not.
    offer : Offer
        The last offer of the rounds before.
    first_step : int
        Number of the round's first optimizer step, from 0.
    rest_at : int
        Bytes of the log at which the member is to be saved.
    on_rest : callable
        Saves the member after so many steps of the round, and returns the log to go on with.
    now, sleep : callable
        A clock that never goes back, and waiting by it.

    Attributes
    ----------
    offer : Offer
        The last offer.
    exchanges : int
        How many took place.
    seconds : float
        How long the member waited for them.
    """

    def __init__(
        self,
        member: Member,
        line: Line,
        log: ExchangeLog,
        *,
        run: bytes,
        config: ExchangeConfig,
        offer: Offer,
        first_step: int,
        rest_at: int,
        on_rest: Callable[[int], ExchangeLog],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.offer = offer
        self.exchanges = 0
        self.seconds = 0.0
        self._member = member
        self._line = line
        self._log = log
        self._packets = RunPackets(run, member.draw)
        self._config = config
        self._first_step = first_step
        self._rest_at = rest_at
        self._on_rest = on_rest
        self._now = now
        self._sleep = sleep
        self._steps = 0
        self._next = 0
        self._out = False
        self._aside = ""
        self._try_again_at = 0.0
        self._pause = 0.1

    def __enter__(self) -> "Exchanging":
        # An offer from before a crash may still be out, and then nothing may change until it is settled.
        self._out = self.offer.exchange > self._member.applied
        began = self._now()
        if self._out:
            self._packet = self._encoded()
            self._take(self._call_until_heard())
        else:
            self._connect()
        self.seconds += self._now() - began
        self._hook: Any = self._member.optimizer.register_step_post_hook(self._stepped)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._hook.remove()
        try:
            if kind is None:
                self._conclude()
        finally:
            self._line.close(self._member.applied)
            self._log.close()

    def _stepped(self, *_: object) -> None:
        self._steps += 1
        began = self._now()
        self._conclude()
        if (self._first_step + self._steps) % self._config.every == 0:
            self._exchange()
        self.seconds += self._now() - began
        if self._log.size >= self._rest_at:
            self._conclude()
            self._log.close()
            self._log = self._on_rest(self._steps)

    def _exchange(self) -> None:
        for _ in range(ATTEMPTS):
            if self._aside or not self._connect():
                return
            self._make_offer()
            if self._config.overlap or self._heard():
                return

    def _conclude(self) -> None:
        """Hear what became of an offer that is out."""
        if self._out:
            self._heard()

    def _connect(self) -> bool:
        """Reach the server if it can be done now; without it the member trains on for itself."""
        if self._line.connected:
            return True
        if self._now() < self._try_again_at:
            return False
        try:
            self._welcomed(self._line.connect(self._member.applied))
        except LineLostError as error:
            self._try_again_at = self._now() + self._pause
            self._pause = min(2 * self._pause, 10.0)
            logger.warning("member %d trains on without the server: %s", self._member.index, error)
            return False
        self._pause = 0.1
        return True

    def _welcomed(self, heard: Heard) -> None:
        self._next = heard.settled + 1
        if heard.packet:
            self._apply(heard.packet)

    def _make_offer(self) -> None:
        exchange = self._next
        values = self._member.offer(exchange)
        self.offer = Offer(exchange, values, self._first_step + self._steps)
        self._packet = self._encoded()
        self._reach("offering")
        # Written down first: what is offered may be somebody else's from the moment it is sent.
        self._log.append(Kind.OFFERED, exchange, values)
        self._out = True
        with suppress(LineLostError):  # noticed again, and mended, where the answer is awaited
            self._line.send(exchange, self._member.applied, self._packet)
        self._reach("sent")
        # While the offer is on its way: what the next one will ask for.
        self._member.draw.coordinates(exchange + 1)

    def _encoded(self) -> bytes:
        assert self.offer.values is not None
        return self._packets.offer(self._member.index, self.offer.exchange, self.offer.values)

    def _heard(self) -> bool:
        """Wait for the answer to the offer that is out; return whether it was for the right exchange."""
        try:
            heard = self._line.receive()
        except LineLostError:
            heard = self._call_until_heard()
        return self._take(heard)

    def _call_until_heard(self) -> Heard:
        """Call again and again, until it is known what became of the offer that is out.

        Raises
        ------
        ExchangeError
            If the server stays away. The offer may be settled, so the member must not train on.
        """
        limit, pause = self._now() + self._line.patience, 0.05
        while True:
            try:
                heard = self._line.connect(self._member.applied)
                self._welcomed(heard)
                if not self._out:
                    return Heard(Outcome.SETTLED, heard.settled)
                if heard.settled >= self.offer.exchange:
                    self._out = False  # without a delivery: alone in it, or too late for it
                    return Heard(Outcome.SETTLED, heard.settled)
                self._line.send(self.offer.exchange, self._member.applied, self._packet)
                return self._line.receive()
            except LineLostError as error:
                if self._now() >= limit:
                    raise ExchangeError(
                        f"member {self._member.index} has offered for exchange {self.offer.exchange}, and "
                        f"the server was not reached for {self._line.patience:g} s ({error}): it waits for "
                        "the next request, and goes on where it is."
                    ) from error
                self._sleep(pause)
                pause = min(2 * pause, 2.0)

    def _take(self, heard: Heard) -> bool:
        """Take an answer to the offer."""
        if heard.packet:
            self._apply(heard.packet)
        self._out = False
        self._next = heard.settled + 1
        if heard.outcome is Outcome.ASIDE:
            self._aside = heard.reason or "set aside"
            logger.warning(
                "member %d takes part in no exchange any more: %s", self._member.index, self._aside
            )
        elif heard.outcome is Outcome.KEPT:
            logger.warning("member %d keeps its own values: %s", self._member.index, heard.reason)
        return heard.outcome is not Outcome.AGAIN

    def _apply(self, packet: bytes) -> None:
        """Apply a delivery, once; it answers the offer that is out, if there is one."""
        member, config = self._member, self._config
        delivery = self._packets.read_delivery(packet, member.index)
        exchange = delivery.exchange
        if exchange <= member.applied:
            return
        if exchange != self.offer.exchange or self.offer.values is None:
            raise ExchangeError(
                f"a delivery of exchange {exchange} for member {member.index}, whose last offer was for "
                f"{self.offer.exchange}."
            )
        # Without overlap the member still holds what it offered.
        now = member.offer(exchange) if config.overlap else None
        values = taken_over(delivery.values, offered=self.offer.values, dtype=config.dtype, now=now)
        self._reach("delivered")
        self._log.append(Kind.APPLIED, exchange, values)
        member.deliver(exchange, values)
        self.exchanges += 1
        self._out = False
        self._reach("applied")

    def _reach(self, point: str) -> None:
        fault = points.reach(point, member=self._member.index, exchange=self.offer.exchange)
        if fault is not None:
            self._line.cut()
