"""The stream plane's exchanges where members do not reach the stream port: one at the end of each round.

They are numbered on from those over streams, so that neither the journal nor a member's state is of another
kind: a member offers in its reply, and what it gets comes with the next request, as on the round plane.
"""

from collections.abc import Collection

from wash_fl.protocol.commands import Command
from wash_fl.protocol.escrow import Settlement
from wash_fl.protocol.exchanges import StreamEvent
from wash_fl.protocol.once_per_round import OncePerRound
from wash_fl.protocol.state import ServerState


class WithoutStreams:
    """Exchanges of a run on the stream plane, in Flower's messages.

    Parameters
    ----------
    state : ServerState
        What the server knows.
    """

    def __init__(self, state: ServerState) -> None:
        self._in_messages = OncePerRound(state)
        self._escrow = state.escrow
        self._journal = state.journal
        self._round = self._exchange = 0

    @property
    def replies_offer_for(self) -> int:
        """The exchange for which replies to the next round offer."""
        return self._escrow.settled + 1

    def delivery(self, member: int) -> bytes:
        """Return the packet that waits for a member."""
        return self._in_messages.delivery(member)

    def begin(self, number: int, asked: Collection[int], now: float) -> None:
        """Open the round's exchange, among all members that the run counts on."""
        self._round, self._exchange = number, self.replies_offer_for
        self._in_messages.begin(self._exchange, asked, now)

    def offered(self, member: int, number: int, packet: bytes) -> str:
        """Hand a member's offer to the escrow; return why the member has to start anew, or nothing."""
        # What comes late is of an exchange whose number nobody remembers, and too late in any case.
        return self._in_messages.offered(member, self._exchange, packet) if number == self._round else ""

    def handle(self, event: StreamEvent, now: float) -> list[Command]:
        """Let nobody in."""
        return self._in_messages.handle(event, now)

    def end(self, number: int, now: float) -> tuple[Settlement, list[Command]]:
        """Settle the round's exchange, and record the end of the round."""
        settlement, commands = self._in_messages.end(self._exchange, now)
        self._journal.ended(number)
        return settlement, commands
