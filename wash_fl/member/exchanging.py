"""A member's exchanges while it trains: every few optimizer steps it offers a slice, and hears its fate.

It hooks into the optimizer, so a training loop needs no change. Without overlap a step begins only after the
verdict on the offer before it; with overlap the slice of one step travels while the next is computed.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from wash_fl.clock import Clock
from wash_fl.errors import UnreachedError
from wash_fl.faults import points
from wash_fl.member.log import ExchangeLog
from wash_fl.member.member import Member
from wash_fl.member.snapshot import Buffers, buffers_of
from wash_fl.protocol.messages import ServerReply, ServerStatus
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.session import MemberSession, Offer

logger = logging.getLogger("flwr.wash_fl")

ATTEMPTS: Final = 3
"""Offers that a member makes at one step, if it comes too late for the ones before."""


class LineLostError(Exception):
    """The connection to the server is broken, or was not made."""


class Line(Protocol):
    """The member's connection to the server, for one round."""

    def connect(self, applied: int) -> ServerReply:
        """Call the server, in place of any call before, and say hello; return its reply.

        Raises
        ------
        LineLostError
            If it cannot be reached.
        """

    def send(self, exchange: int, applied: int, packet: bytes) -> None:
        """Send an offer."""

    def receive(self) -> ServerReply:
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


@dataclass(frozen=True)
class StepOptions:
    """When a member exchanges, and when it is saved.

    Attributes
    ----------
    every : int
        Optimizer steps between two exchanges.
    overlap : bool
        Whether it trains on while a slice is on its way.
    first_step : int
        Number of the round's first optimizer step, from 0.
    rest_at : int
        Bytes of the log at which the member is to be saved.
    on_rest : callable
        Saves the member after so many steps of the round, with the buffers it had then, and returns the log
        to go on with.
    """

    every: int
    overlap: bool
    first_step: int
    rest_at: int
    on_rest: Callable[[int, Buffers], ExchangeLog]


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
    packets : RunPackets
        How slices are read and written.
    offer : Offer
        The last offer of the rounds before.
    options : StepOptions
        When to exchange, and when to save.
    clock : Clock
        What waiting is measured by.

    Attributes
    ----------
    session : MemberSession
        What decides: with the last offer, and how many exchanges took place.
    seconds : float
        How long the member waited for them.
    """

    def __init__(
        self,
        member: Member,
        line: Line,
        log: ExchangeLog,
        *,
        packets: RunPackets,
        offer: Offer,
        options: StepOptions,
        clock: Clock | None = None,
    ) -> None:
        self.session = MemberSession(member, packets, offer, record=log, reach=self._reach)
        self.seconds = 0.0
        self._member = member
        self._line = line
        self._log = log
        self._options = options
        self._clock = clock or Clock()
        self._steps = 0
        self._resting: Buffers | None = None
        self._try_again_at = 0.0
        self._pause = 0.1

    def __enter__(self) -> "Exchanging":
        began = self._clock.now()
        try:
            # An offer from before a crash may still be out, and then nothing may change until it is settled.
            if self.session.out:
                self._call_until_replied()
            else:
                self._connect()
        except BaseException as error:
            self._leave(error)
            raise
        self.seconds += self._clock.now() - began
        optimizer = self._member.optimizer
        self._hooks: list[Any] = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for hook in self._hooks:
            hook.remove()
        if error is not None:
            self._leave(error)
            return
        try:
            self._conclude()
        except BaseException as raised:
            self._leave(raised)
            raise
        self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        """Hang up, with a farewell unless this process is on its way to die: the dead do not acknowledge."""
        if error is None or isinstance(error, Exception):
            self._line.close(self._member.applied)
        else:
            self._line.cut()
        self._log.close()

    def _after_step(self, *_: object) -> None:
        options = self._options
        self._steps += 1
        began = self._clock.now()
        self._conclude()
        if (options.first_step + self._steps) % options.every == 0:
            self._exchange()
        self.seconds += self._clock.now() - began
        if self._log.size >= options.rest_at:
            self._conclude()
            # A loop steps its scheduler after the optimizer: what it keeps is as it is to be only later.
            self._resting = buffers_of(self._member.model)

    def _before_step(self, *_: object) -> None:
        """Have the member saved as it is between two steps, but before this one's forward pass."""
        if self._resting is not None:
            buffers, self._resting = self._resting, None
            self._log.close()
            self._log = self.session.record = self._options.on_rest(self._steps, buffers)

    def _exchange(self) -> None:
        for _ in range(ATTEMPTS):
            if self.session.aside or not self._connect():
                return
            self._offer()
            if self._options.overlap or self._replied():
                return

    def _conclude(self) -> None:
        """Wait for what became of an offer that is out."""
        if self.session.out:
            self._replied()

    def _connect(self) -> bool:
        """Reach the server if it can be done now; without it the member trains on for itself."""
        if self._line.connected:
            return True
        if self._clock.now() < self._try_again_at:
            return False
        try:
            self.session.welcomed(self._line.connect(self._member.applied))
        except LineLostError as error:
            self._try_again_at = self._clock.now() + self._pause
            self._pause = min(2 * self._pause, 10.0)
            logger.warning("member %d trains on without the server: %s", self._member.index, error)
            return False
        self._pause = 0.1
        return True

    def _offer(self) -> None:
        exchange = self.session.next
        packet = self.session.make_offer(exchange, self._options.first_step + self._steps)
        with suppress(LineLostError):  # noticed again, and mended, where the reply is awaited
            self._line.send(exchange, self._member.applied, packet)
        self._reach("sent")
        # While the offer is on its way: what the next one will ask for.
        self._member.draw.selection(exchange + 1)

    def _replied(self) -> bool:
        """Wait for the reply to the offer that is out; return whether it was for the right exchange."""
        try:
            reply = self._receive()
        except LineLostError:
            return self._call_until_replied()
        return self.session.replied(reply)

    def _receive(self) -> ServerReply:
        reply = self._line.receive()
        if reply.status is ServerStatus.REPLACED:
            self._line.cut()
            raise LineLostError(reply.reason)
        return reply

    def _call_until_replied(self) -> bool:
        """Call again and again, until it is known what became of the offer that is out.

        Raises
        ------
        UnreachedError
            If the server stays away. The offer may be settled, so the member must not train on.
        """
        limit, pause = self._clock.now() + self._line.patience, 0.05
        session, line = self.session, self._line
        while True:
            try:
                if not session.welcomed(line.connect(self._member.applied)):
                    return True
                line.send(session.offer.exchange, self._member.applied, session.packet())
                return session.replied(self._receive())
            except LineLostError as error:
                if self._clock.now() >= limit:
                    raise UnreachedError(
                        f"member {self._member.index} has offered for exchange {session.offer.exchange}, and "
                        f"the server was not reached for {line.patience:g} s ({error}): it waits for the "
                        "next request, and goes on where it is."
                    ) from error
                self._clock.sleep(pause)
                pause = min(2 * pause, 2.0)

    def _reach(self, point: str) -> None:
        fault = points.reach(point, member=self._member.index, exchange=self.session.offer.exchange)
        if fault is not None:
            self._line.cut()
