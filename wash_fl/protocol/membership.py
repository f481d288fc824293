"""Who is a member, on which node, and in what standing: the server's list, kept in the journal."""

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Protocol

from wash_fl.protocol.escrow import Escrow
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Enrolment, Standing

logger = logging.getLogger("flwr.wash_fl")


class Claims(Protocol):
    """What a member says of itself: which start it goes on from, and how far it is."""

    @property
    def incarnation(self) -> int:
        """Number of its start."""

    @property
    def initial(self) -> str:
        """Hash of the weights it started from."""

    @property
    def applied(self) -> int:
        """The last exchange whose delivery it applied."""

    @property
    def round(self) -> int:
        """The last round that it trained, or is in."""


class Membership:
    """The members of a run.

    A member is known by its index, which its node brings; nodes come and go. What must outlive the server
    (from which weights a member started, what it acknowledged, whether the run goes on without it) is in
    the journal before it is acted upon.

    Parameters
    ----------
    journal : Journal
        Where enrolments are kept.
    escrow : Escrow
        Where deliveries wait for members.
    rounds : callable
        Returns how many rounds have ended.

    Attributes
    ----------
    nodes : dict of int to int
        The node of each member that was met since the server started.
    took_part : dict of int to int
        The last round in which each member answered in time, as far as this server process knows.
    strangers : set of int
        Nodes that are not of this run, and are not asked again.
    reasons : dict of int to str
        Why a member was missing last; it has none once it does what it is asked.
    """

    def __init__(self, journal: Journal, escrow: Escrow, rounds: Callable[[], int]) -> None:
        self._journal = journal
        self._escrow = escrow
        self._rounds = rounds
        self._enrolments = journal.enrolments()
        self.nodes: dict[int, int] = {}
        self.took_part: dict[int, int] = dict.fromkeys(self._enrolments, self.rounds)
        self.strangers: set[int] = set()
        self.reasons: dict[int, str] = {}

    @property
    def rounds(self) -> int:
        """Rounds that have ended."""
        return self._rounds()

    def __contains__(self, member: int) -> bool:
        return member in self._enrolments

    def __getitem__(self, member: int) -> Enrolment:
        return self._enrolments[member]

    def enrol(self, member: int, enrolment: Enrolment) -> None:
        """Write a member down, and let nothing wait for it that was meant for what it held before."""
        self._write(member, enrolment)
        self._escrow.release(member)
        self.took_part[member] = self.rounds

    def begin(self, member: int, initial: str) -> int:
        """Write down that a member is to start from another member's weights; return the start's number.

        Its answer must be recognised after a crash, and no start that was asked for before may undo this
        one if it comes late.
        """
        incarnation = 1 + (self._enrolments[member].incarnation if member in self else 0)
        settled = self._escrow.settled
        self.enrol(member, Enrolment(initial, incarnation, joined=settled, seen=settled, applied=settled))
        return incarnation

    def acknowledge(self, member: int, applied: int, *, sync: bool = True) -> None:
        """Take note of the last exchange whose delivery a member has applied; see the escrow's."""
        self._escrow.acknowledge(member, applied, sync=sync)
        known = self._enrolments[member]
        if known.applied < applied <= self._escrow.settled:
            self._enrolments[member] = replace(known, applied=applied)

    def inconsistent(self, member: int, says: Claims) -> str:
        """Return why a member is not the one on record, by what it says of itself; empty if it is.

        Its disk may not have kept its word. Or the request to start anew has not reached it.
        """
        known = self._enrolments[member]
        if (says.incarnation, says.initial) != (known.incarnation, known.initial):
            return "it did not start from the weights that it was last given"
        if says.applied < known.applied:
            return "it fell back to a state before what it had acknowledged"
        return ""

    def ahead(self, says: Claims) -> str:
        """Return how a member is further than the journal, an older copy then; empty if it is not."""
        settled = self._escrow.settled
        if says.applied > settled or says.round > self.rounds + 1:
            return (
                f"round {says.round}, applied {says.applied}; the journal ends at round {self.rounds}, "
                f"exchange {settled}"
            )
        return ""

    def missed(self, member: int, reason: str) -> None:
        """Take note of why a member is missing."""
        self.reasons[member] = reason

    def did(self, member: int) -> None:
        """Take note that a member did what it was asked."""
        self.reasons.pop(member, None)

    def active(self) -> list[int]:
        """Return the members that the run counts on, in order."""
        return sorted(member for member, each in self._enrolments.items() if each.standing is Standing.ACTIVE)

    def here(self, connected: Collection[int]) -> dict[int, int]:
        """Return the node of each active member that is connected, in order of members."""
        return {
            member: self.nodes[member]
            for member in self.active()
            if member in self.nodes and self.nodes[member] in connected
        }

    def drop(self, member: int, standing: Standing, reason: str) -> None:
        """Go on without a member, and say why."""
        self._write(member, replace(self._enrolments[member], standing=standing, reason=reason))
        self._escrow.release(member)
        logger.warning("member %d is %s: %s", member, standing, reason)

    def forget_given_up(self, connected: Collection[int]) -> None:
        """Forget the nodes of members that were given up and are gone: if they return, they are met."""
        for member, each in self._enrolments.items():
            if each.standing is Standing.GIVEN_UP and self.nodes.get(member, -1) not in connected:
                self.nodes.pop(member, None)

    def left_out(self) -> dict[int, str]:
        """Return the members the run goes on without, and why."""
        return {
            member: f"{each.standing}: {each.reason}"
            for member, each in sorted(self._enrolments.items())
            if each.standing is not Standing.ACTIVE
        }

    def _write(self, member: int, enrolment: Enrolment) -> None:
        self._journal.enrolled(member, enrolment)
        self._enrolments[member] = enrolment
