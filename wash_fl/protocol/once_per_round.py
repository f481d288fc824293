"""The round plane's exchanges: one at the end of each round, of what comes in the replies."""

import logging
from collections.abc import Callable, Collection

from wash_fl.protocol.commands import Command, Settled, Tell
from wash_fl.protocol.escrow import Escrow, Settlement
from wash_fl.protocol.events import Hello, Offered
from wash_fl.protocol.exchanges import OTHER_ANCHOR, Exchanges, StreamEvent
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Standing
from wash_fl.protocol.messages import ServerReply, ServerStatus
from wash_fl.protocol.state import ServerState

logger = logging.getLogger("flwr.wash_fl")


class OncePerRound(Exchanges):
    """The round plane: members offer in their replies, and what they get comes with the next request."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._packets = state.packets
        self._escrow = state.escrow
        self._membership = state.membership

    @staticmethod
    def rounds(journal: Journal, escrow: Escrow) -> Callable[[], int]:
        """Return what counts the settled exchanges: each ends a round."""
        del journal
        return lambda: escrow.settled

    @property
    def replies_offer_for(self) -> int:
        """0: a reply offers for the exchange of its round."""
        return 0

    def fall_back(self) -> bool:
        """Return False: there are no streams."""
        return False

    def delivery(self, member: int) -> bytes:
        """Return the packet that waits for a member."""
        return self._state.delivery(member)

    def resume(self, active: Collection[int], now: float) -> None:
        """Do nothing: whoever is asked again answers again."""

    def begin(self, number: int, asked: Collection[int], now: float) -> None:
        """Open the round's exchange, among all members that the run counts on."""
        del asked, now
        self._escrow.open(number, self._membership.active())

    def offered(self, member: int, number: int, packet: bytes) -> str:
        """Hand a member's offer to the escrow; return why the member has to start anew, or nothing."""
        offer = self._packets.read_offer(packet, member, number)
        refusal = self._escrow.offer(member, number, offer.values, offer.chain)
        if refusal is ServerStatus.ANEW:
            return OTHER_ANCHOR
        if refusal is not None:
            logger.warning("member %d: its offer in round %d is %s", member, number, refusal)
        return ""

    def handle(self, event: StreamEvent, now: float) -> list[Command]:
        """Let nobody in: there are no streams."""
        del now
        if not isinstance(event, Hello | Offered):
            return []
        reason = "this run exchanges once per round, in Flower's messages."
        reply = ServerReply(ServerStatus.DENIED, self._escrow.settled, reason=reason)
        return [Tell(event.member, reply)]

    def unreached(self, members: Collection[int]) -> tuple[int, ...]:
        """Return nobody: offers come in replies."""
        del members
        return ()

    def due(self) -> float | None:
        """Return None: the round's end settles."""
        return None

    def settle_if_due(self, now: float) -> list[Command]:
        """Return nothing: the round's end settles."""
        del now
        return []

    def end(self, number: int, now: float) -> tuple[Settlement, list[Command]]:
        """Settle the round's exchange."""
        del number, now
        settlement = self._escrow.settle()
        for member, reason in settlement.aside.items():
            self._membership.drop(member, Standing.SET_ASIDE, reason)
        return settlement, [Settled(settlement)]
