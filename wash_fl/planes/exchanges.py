"""How a round's exchanges come about: one at its end, or many while it lasts."""

from collections.abc import Collection
from typing import Any, Protocol, Self

from wash_fl.core.escrow import Escrow, Settlement
from wash_fl.core.journal import Standing
from wash_fl.faults import points
from wash_fl.planes.clock import Clock
from wash_fl.planes.roster import Roster


class Exchanges(Protocol):
    """The exchanges of a run's rounds; a context that lasts as long as the server.

    Attributes
    ----------
    clock : Clock
        What the strategy has to wait by.
    """

    clock: Clock

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def fields(self, member: int, delivery: bytes) -> dict[str, Any]:
        """Return what a member's request to train says about exchanges.

        Parameters
        ----------
        member : int
            Who is asked.
        delivery : bytes
            The packet that waits for it; empty if none does.
        """

    def begin(self, number: int, asked: Collection[int]) -> None:
        """Begin a round in which these members are asked to train."""

    def end(self, number: int) -> Settlement:
        """End a round, and return what was settled in it; who is set aside is off the roster then."""


class OncePerRound:
    """The round plane: members offer in their replies, and what they get comes with the next request."""

    def __init__(self, escrow: Escrow, roster: Roster, clock: Clock) -> None:
        self.clock = clock
        self._escrow = escrow
        self._roster = roster

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def fields(self, member: int, delivery: bytes) -> dict[str, Any]:
        """Return the delivery."""
        del member
        return {"delivery": delivery}

    def begin(self, number: int, asked: Collection[int]) -> None:
        """Open the round's exchange, among all members that the run counts on."""
        del asked
        self._escrow.open(number, self._roster.active())

    def end(self, number: int) -> Settlement:
        """Settle the round's exchange."""
        settlement = self._escrow.settle()
        points.reach("settled", exchange=number)
        for member, reason in settlement.aside.items():
            self._roster.drop(member, Standing.SET_ASIDE, reason)
        return settlement
