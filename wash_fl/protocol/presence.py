"""Who is there: before a round, enough members to train it, and before the end, all that can be collected."""

from collections.abc import Collection
from typing import Final

from wash_fl.errors import RunError
from wash_fl.protocol.joining import Joining
from wash_fl.protocol.journal_rows import Standing
from wash_fl.protocol.messages import Kind
from wash_fl.protocol.reasons import in_words
from wash_fl.protocol.state import ServerState
from wash_fl.protocol.turn import Flow

FEWEST: Final = 2
"""Members without whom there is nothing to exchange."""


class Presence:
    """Waits for members, lets newcomers join meanwhile, and gives up those that stay away.

    Parameters
    ----------
    state : ServerState
        What the server knows.
    joining : Joining
        How members join.

    Attributes
    ----------
    needed : int
        Members without whom a round does not start.
    away : dict of int to str
        Why each member that :meth:`free` did not return last cannot be asked.
    """

    def __init__(self, state: ServerState, joining: Joining) -> None:
        self.needed = max(state.options.min_members, FEWEST)
        self.away: dict[int, str] = {}
        self._turn = state.turn
        self._membership = state.membership
        self._requests = state.requests
        self._joining = joining
        self._terms = state.terms
        self._options = state.options

    def gather(self, number: int) -> Flow:
        """Wait for as many members as a round needs, and let newcomers join.

        Raises
        ------
        RunError
            If there are still too few after ``timeout`` seconds.
        """
        self._give_up(number)
        limit = self._turn.now + self._options.timeout
        self._joining.unable.clear()
        yield self._turn.now  # what has come since the round before is told first
        while True:
            if self._turn.now < limit:
                self._joining.ask_donor(number)
            free = self.free()
            if self._joining.donation is None and len(free) >= self.needed:
                return
            if self._turn.now >= limit and self._joining.donation is None:
                away = "; ".join(in_words(self.away))
                raise RunError(
                    f"round {number}: {len(free)} of the {self.needed} members that it needs were there "
                    f"within {self._options.timeout:g} s{away and f' ({away})'}. Bring the others back, or "
                    "lower min-members, and run again with the same run-name: it goes on from here."
                )
            self._joining.greet(number)
            yield limit if self._joining.donation is None else self._joining.donation.expires

    def assemble(self, patience: float) -> Flow:
        """Wait until all members can be collected that will be there.

        Members that still work on a request are waited for, for a node answers nothing else meanwhile; and
        for ``patience`` seconds those that are not connected, for who is missing now is not in the average;
        but not those that were missing in the last two rounds already.
        """
        began, last = self._turn.now, self._terms.rounds
        lately = {
            member for member in self._membership.active() if self._membership.took_part[member] >= last - 1
        }
        yield self._turn.now
        while True:
            here = self._membership.here(self._turn.connected)
            missing = lately - here.keys() - self._joining.newcomers.keys()
            limit = began + max(
                self._options.timeout if self._requests.waiting(Kind.TRAIN) else 0.0,
                patience if missing else 0.0,
            )
            if self._turn.now >= limit:
                return
            self._joining.greet(last)
            yield limit

    def free(self) -> dict[int, int]:
        """Return the node of each member that can be asked, and take note of why others cannot."""
        connected = self._turn.connected
        here = self._membership.here(connected)
        free = {member: node for member, node in here.items() if not self._requests.busy(node)}
        self.away = {
            member: self._why_away(member, connected)
            for member in self._membership.active()
            if member not in free
        }
        return free

    def _why_away(self, member: int, connected: Collection[int]) -> str:
        node = self._membership.nodes.get(member)
        if node is None:
            return self._membership.reasons.get(member, "it is not connected")
        return "it is still at work on an earlier request" if node in connected else "it is not connected"

    def _give_up(self, number: int) -> None:
        after = self._options.give_up_after
        for member in self._membership.active():
            away = number - 1 - self._membership.took_part[member]
            if after and away >= after:
                reason = f"it did not take part in {away} rounds in a row"
                if last := self._membership.reasons.get(member):
                    reason += f": {last.rstrip('.')}"
                self._membership.drop(member, Standing.GIVEN_UP, reason)
