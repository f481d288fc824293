"""How the exchanges of a run's rounds come about: one at the end of each, or many while it lasts."""

from collections.abc import Callable, Collection
from typing import Final, Protocol

from wash_fl.protocol.commands import Command
from wash_fl.protocol.escrow import Escrow, Settlement
from wash_fl.protocol.events import CallLost, Farewell, Hello, Offered
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.state import ServerState

OTHER_ANCHOR: Final = "its anchor is not the server's: one of the two goes on from an older copy"
"""Why a member has to start anew that offers differences to another anchor."""

StreamEvent = Hello | Offered | Farewell | CallLost


class Exchanges(Protocol):
    """The exchanges of a run's rounds, on one of the planes."""

    def __init__(self, state: ServerState) -> None: ...

    @staticmethod
    def rounds(journal: Journal, escrow: Escrow) -> Callable[[], int]:
        """Return what counts the rounds that have ended."""

    @property
    def replies_offer_for(self) -> int:
        """The exchange that replies offer for, where it is not the round's own; else 0."""

    def fall_back(self) -> bool:
        """Go on without streams once this round has ended; return False if there are none."""

    def delivery(self, member: int) -> bytes:
        """Return the packet that a request to train brings to a member; empty if none does."""

    def resume(self, active: Collection[int], now: float) -> None:
        """Begin where a server that died may have been, with members that the run counts on already."""

    def begin(self, number: int, asked: Collection[int], now: float) -> None:
        """Begin a round in which these members are asked to train."""

    def offered(self, member: int, number: int, packet: bytes) -> str:
        """Take the offer in a member's reply to a round; return why the member has to start anew, or nothing.

        Raises
        ------
        PacketError
            If it is none.
        """

    def handle(self, event: StreamEvent, now: float) -> list[Command]:
        """Take what a member says on its stream."""

    def unreached(self, members: Collection[int]) -> tuple[int, ...]:
        """Return those of a round's members that had no way to its exchanges, in order."""

    def due(self) -> float | None:
        """Return when something is to be settled though nothing more comes; None if nothing is."""

    def settle_if_due(self, now: float) -> list[Command]:
        """Settle what is due."""

    def end(self, number: int, now: float) -> tuple[Settlement, list[Command]]:
        """End a round, and return what was settled in it; who is set aside is no active member then."""
