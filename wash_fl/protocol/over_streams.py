"""The stream plane's exchanges: many while a round lasts, each among those that it can expect."""

import hmac
import logging
from collections.abc import Callable, Collection
from typing import Final

from wash_fl.core.codec import encoded_size
from wash_fl.core.gauge import Gauge
from wash_fl.core.packet import PacketError
from wash_fl.protocol.commands import Command, OfferTaken, Settled, Tell
from wash_fl.protocol.escrow import Escrow, Settlement
from wash_fl.protocol.events import Farewell, Hello, Offered
from wash_fl.protocol.exchanges import OTHER_ANCHOR, Exchanges, StreamEvent
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Standing
from wash_fl.protocol.messages import ServerReply, ServerStatus
from wash_fl.protocol.quorum import Quorum
from wash_fl.protocol.state import ServerState
from wash_fl.protocol.text import printable
from wash_fl.protocol.without_streams import WithoutStreams

logger = logging.getLogger("flwr.wash_fl")

VERSION: Final = 1
"""Of what is said on a stream."""


class OverStreams(Exchanges):
    """The stream plane: members offer every few steps, and an exchange waits for those it can expect.

    Parameters
    ----------
    state : ServerState
        What the server knows.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._falls_back = False
        self._without: WithoutStreams | None = None
        self._packets = state.packets
        self._escrow = state.escrow
        self._membership = state.membership
        self._journal = state.journal
        self._quorum = Quorum(state.options.exchange_deadline, state.options.start_timeout)
        self._waiting: set[int] = set()
        self._called: set[int] = set()
        self._open = False
        self._first = 0.0
        self._took_part: dict[int, None] = {}
        self._aside: dict[int, str] = {}
        self._gauge: Gauge | None = None

    @staticmethod
    def rounds(journal: Journal, escrow: Escrow) -> Callable[[], int]:
        """Return what counts the rounds whose end is recorded."""
        del escrow
        return lambda: journal.rounds

    def token(self, member: int) -> bytes:
        """Return what a member proves itself by; it travels inside Flower's authenticated message."""
        content = self._packets.run + member.to_bytes(4, "little")
        return hmac.new(self._journal.secret, content, "sha256").digest()

    @property
    def longest_offer(self) -> int:
        """Bytes that the values of an offer for the next exchange take."""
        draw = self._packets.draw
        slots, count = len(draw.layout.slots), draw.count(self._escrow.settled + 1)
        return encoded_size(draw.schedule.config.dtype, slots, count)

    @property
    def replies_offer_for(self) -> int:
        """The exchange for which replies offer, if members do not reach the streams; 0 otherwise."""
        return 0 if self._without is None else self._without.replies_offer_for

    def fall_back(self) -> bool:
        """Go on without streams once this round has ended, until another server begins."""
        self._falls_back = True
        return True

    def delivery(self, member: int) -> bytes:
        """Return what waits for a member without streams, or nothing: on streams it is delivered there."""
        return b"" if self._without is None else self._without.delivery(member)

    def resume(self, active: Collection[int], now: float) -> None:
        """Expect the members that called a server before: in the middle of a round they call again."""
        if active:
            self.begin(0, active, now)

    def begin(self, number: int, asked: Collection[int], now: float) -> None:
        """Let the members of the round exchange."""
        if self._without is not None:
            self._without.begin(number, asked, now)
            return
        self._took_part.clear()
        self._called.clear()
        self._aside.clear()
        self._gauge = None
        self._quorum.begin(asked, now)

    def offered(self, member: int, number: int, packet: bytes) -> str:
        """Take an offer in a reply where there are no streams, and leave it alone where there are."""
        if self._without is not None:
            return self._without.offered(member, number, packet)
        logger.warning("member %d: its reply to round %d brings an offer; it is ignored", member, number)
        return ""

    def handle(self, event: StreamEvent, now: float) -> list[Command]:
        """Take what a member says on its stream."""
        if self._without is not None:
            return self._without.handle(event, now)
        if isinstance(event, Hello):
            return [Tell(event.member, self._hello(event, now))]
        member = event.member
        if isinstance(event, Offered):
            reply = self._offered(event, now)
            if reply is not None:
                self._quorum.told(member, now)
                return [Tell(member, reply)]
            self._waiting.add(member)
            return [OfferTaken(event.exchange), *self.settle_if_due(now)]
        if isinstance(event, Farewell):
            self._acknowledge(member, event.applied)
            self._quorum.left(member)
            return self.settle_if_due(now)
        self._waiting.discard(member)
        self._quorum.lost(member)
        return []

    def unreached(self, members: Collection[int]) -> tuple[int, ...]:
        """Return those of a round's members whose calls never came, in order."""
        if self._without is not None:
            return ()
        return tuple(sorted(set(members) - self._called))

    def due(self) -> float | None:
        """Return when the open exchange is to be settled, by the clock; None if none is open."""
        return self._quorum.due() if self._open else None

    def settle_if_due(self, now: float) -> list[Command]:
        """Settle the open exchange if nobody is awaited any more."""
        due = self.due()
        return [] if due is None or due > now else self._settle(now)

    def end(self, number: int, now: float) -> tuple[Settlement, list[Command]]:
        """Settle what is open, wait for nobody, and record the end of the round."""
        if self._without is not None:
            return self._without.end(number, now)
        self._quorum.end()
        commands = self.settle_if_due(now)
        self._escrow.record_acknowledged()
        self._journal.ended(number)
        members = tuple(sorted(self._took_part))
        absent = tuple(sorted(set(self._membership.active()) - self._took_part.keys()))
        settled = Settlement(self._escrow.settled, members, absent, self._gauge, dict(self._aside))
        if self._falls_back:
            self._without = WithoutStreams(self._state)
        return settled, commands

    def _hello(self, hello: Hello, now: float) -> ServerReply:
        """Let a member in, or say why not."""
        refused = self._refusal(hello)
        if refused is not None:
            return refused
        member = hello.member
        if reason := self._membership.inconsistent(member, hello):
            return self._reply(ServerStatus.ANEW, reason=reason)
        # A request of a server whose journal an older copy replaced may still be on its way.
        if ahead := self._membership.ahead(hello):
            reason = f"it is ahead of the journal, an older copy ({ahead})."
            return self._reply(ServerStatus.DENIED, reason=reason)
        self._membership.acknowledge(member, hello.applied, sync=False)
        self._called.add(member)
        self._waiting.discard(member)  # what the call before waited for comes with the next offer
        self._quorum.called(member, now)
        return self._reply(ServerStatus.WELCOME, member)

    def _refusal(self, hello: Hello) -> ServerReply | None:
        """Return why a caller is not let in; None if it is."""
        proven = hmac.compare_digest(hello.token, self.token(hello.member))
        if not proven:
            # Nothing else is said to who may be anybody: not even which run this is, or of which version.
            reason = "its token is not that of this run and member: it comes with the train message."
        elif hello.version != VERSION:
            reason = f"version {hello.version}, and this server has {VERSION}: update the older side."
        elif hello.run != self._packets.run:
            reason = "it is of another run."
        elif hello.layout != self._packets.draw.layout.fingerprint:
            reason = "its model is another."
        elif hello.member not in self._membership.active():
            reason = f"member {hello.member} is not of this run, or not any more."
        else:
            return None
        logger.warning("a call that says it is of member %d is not let in: %s", hello.member, reason)
        return self._reply(ServerStatus.DENIED, reason=reason)

    def _offered(self, event: Offered, now: float) -> ServerReply | None:
        """Hand an offer to the escrow; None if the reply is that of the exchange."""
        member, exchange = event.member, event.exchange
        self._acknowledge(member, event.applied)
        settled = self._escrow.settled
        if exchange != settled + 1:
            status = ServerStatus.LATE if exchange <= settled else ServerStatus.EARLY
            return self._reply(status, member)
        try:
            offer = self._packets.read_offer(event.packet, member, exchange)
        except PacketError as error:
            if member in self._escrow.offered:
                return None  # sent twice, and the first one was whole: that is out, and is answered
            logger.warning("member %d: %s It keeps its own values", member, error)
            return self._reply(ServerStatus.REFUSED, reason=printable(str(error)))
        if not self._open:
            self._escrow.open(exchange, self._membership.active())
            self._open, self._first = True, now
        refusal = self._escrow.offer(member, exchange, offer.values, offer.chain)
        if refusal is ServerStatus.ASIDE:
            reason = self._membership.left_out().get(member, "it was not asked")
            return self._reply(refusal, reason=reason)
        if refusal is ServerStatus.ANEW:
            return self._reply(refusal, reason=f"{OTHER_ANCHOR}.")
        if refusal is not None:
            return self._reply(refusal, member)
        self._quorum.offered(member, now)
        return None

    def _settle(self, now: float) -> list[Command]:
        missing = self._quorum.settled(now)
        settlement = self._escrow.settle()
        self._open = False
        for member in missing:
            logger.info("exchange %d: member %d missed the deadline", settlement.exchange, member)
        for member, reason in settlement.aside.items():
            self._membership.drop(member, Standing.SET_ASIDE, reason)
            self._quorum.left(member)
        self._took_part |= dict.fromkeys(settlement.members)
        self._aside |= settlement.aside
        self._gauge = settlement.gauge or self._gauge
        waiting, self._waiting = self._waiting, set()
        return [
            Settled(settlement, now - self._first),
            *(Tell(member, self._outcome(member, settlement)) for member in sorted(waiting)),
        ]

    def _outcome(self, member: int, settlement: Settlement) -> ServerReply:
        """Return what an exchange gives to a member that waits for it."""
        if member in settlement.aside:
            return self._reply(ServerStatus.ASIDE, reason=settlement.aside[member])
        took_part = self._escrow.delivery(member) is not None
        return self._reply(ServerStatus.DELIVERED if took_part else ServerStatus.ALONE, member)

    def _acknowledge(self, member: int, applied: int) -> None:
        if member in self._membership and applied <= self._escrow.settled:
            self._membership.acknowledge(member, applied, sync=False)

    def _reply(self, status: ServerStatus, member: int | None = None, *, reason: str = "") -> ServerReply:
        """Return a reply, with what waits for a member."""
        packet = b"" if member is None else self._escrow.packet(self._packets, member)
        return ServerReply(status, self._escrow.settled, packet, reason)
