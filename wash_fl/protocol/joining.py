"""How nodes become members: at the beginning all from the same weights, later from a donor's.

A node is first asked who it is. One that holds a state of this run goes on with it; one that does not
gets weights to start from: the run's initial ones before the first exchange, and from then on those that a
member holds at that moment, for the initial ones would be far from everybody's by then.
"""

import logging
from collections.abc import Collection

from wash_fl.protocol.deadline import model_seconds
from wash_fl.protocol.journal_rows import Enrolment, Standing
from wash_fl.protocol.messages import Answer, Failure, Kind, Request, Start, Status
from wash_fl.protocol.reasons import in_words
from wash_fl.protocol.state import ServerState

logger = logging.getLogger("flwr.wash_fl")


class Joining:
    """Decides which nodes are members, when a run begins and while it goes on.

    Parameters
    ----------
    state : ServerState
        What the server knows.

    Attributes
    ----------
    newcomers : dict of int to int
        The members that wait for weights to start from, and their nodes.
    donation : Request or None
        The request for a donor's weights, while it is out.
    unable : set of int
        Members that could not give theirs in this round.
    """

    def __init__(self, state: ServerState) -> None:
        self.newcomers: dict[int, int] = {}
        self.donation: Request | None = None
        self.unable: set[int] = set()
        self._state = state
        self._turn = state.turn
        self._membership = state.membership
        self._escrow = state.escrow
        self._requests = state.requests
        self._members = state.terms.members
        self._server = state.options.server
        self._seconds = model_seconds(state.packets.draw.layout.size, state.options.timeout)
        self._problems: dict[int, str] = {}

    # Asking

    def meet(self, node: int, start: Start | None = None) -> Request:
        """Ask a node: who are you, and if you hold nothing and there is a start, start there."""
        return self._requests.ask(Kind.JOIN, node, self._seconds, start=start, server=self._server)

    def greet(self, number: int) -> None:
        """Ask the nodes that have not been met who they are; they answer while the round goes on."""
        connected = self._turn.connected
        self._membership.forget_given_up(connected)
        known = {*self._membership.nodes.values(), *self.newcomers.values()}
        for node in sorted(connected - known - self._membership.strangers):
            if not self._requests.busy(node):
                self._requests.ask(Kind.JOIN, node, self._seconds, round=number, server=self._server)

    def ask_donor(self, number: int) -> None:
        """Ask the member that took part last for its weights, if there are newcomers to start from them."""
        waiting = self._waiting()
        if not waiting or self.donation is not None:
            return
        here = self._membership.here(self._turn.connected)
        free = [
            member
            for member, node in here.items()
            if not self._requests.busy(node) and member not in self.unable
        ]
        took_part = self._membership.took_part
        donor = min(free, key=lambda member: (-took_part[member], member), default=None)
        if donor is None:
            self._nobody_gives(waiting)
            return
        self.donation = self._requests.ask(
            Kind.DONATE,
            here[donor],
            self._seconds,
            member=donor,
            round=number,
            delivery=self._state.delivery(donor),
        )

    # What is answered

    def answered(self, request: Request, answer: Answer | Failure) -> None:
        """Take the answer of a node that was asked who it is."""
        node = request.node
        if isinstance(answer, Failure):
            self._problems[node] = answer.reason
            return
        if answer.fence:
            self._requests.fences[node] = answer.fence
        self._problems.pop(node, None)
        if answer.status is Status.UNMET:
            return  # it is asked who it is with the next round
        refused = answer.status is Status.REFUSED
        problem = answer.reason if refused else self._problem(node, answer)
        if problem and problem == self._ahead(answer) and self._is_active(answer.member):
            # One day the numbers may be level, and what it holds never was: it is to start anew then.
            self._membership.drop(
                answer.member, Standing.GIVEN_UP, "it is ahead of the journal, an older copy"
            )
        if problem:
            # The member may be on another node: then this one is the problem.
            its = refused and self._is_free(answer.member)
            (self._membership.reasons if its else self._problems)[answer.member if its else node] = problem
            self._membership.strangers.add(node)
            logger.warning("node %d is left out: %s", node, problem)
        elif answer.status is Status.NOT_JOINED:
            self.newcomers[answer.member] = node
        else:
            self._membership.did(answer.member)
            self._enter(node, answer)

    def donated(self, answer: Answer | Failure, weights: str) -> None:
        """Take what became of the request for a donor's weights, and have newcomers start from them."""
        request, self.donation = self.donation, None
        assert request is not None, "no donor was asked"
        donor = request.member
        waiting = self._waiting()
        given = answer if isinstance(answer, Answer) and answer.status is Status.DONE else None
        reason = "" if given is None else self._membership.inconsistent(donor, given)
        if isinstance(answer, Answer) and answer.status is Status.NOT_JOINED:
            reason = answer.reason or "it has lost its state"
        if isinstance(answer, Answer) and answer.status is Status.UNMET:
            self.meet_again(donor, answer.reason)
        if reason and donor in self._membership.nodes:
            self.reset(donor, reason)
        if given is None or reason or given.member != donor or not weights:
            # Another is asked next, for this one may never be able to.
            self.unable.add(donor)
            self._nobody_gives(waiting)
            return
        self._membership.acknowledge(donor, given.applied)
        settled = self._escrow.settled
        for member, node in sorted(waiting.items()):
            logger.warning(
                "member %d joins after exchange %d with the weights of member %d: the initial ones would be "
                "far from everybody's by now",
                member,
                settled,
                donor,
            )
            # Written down first: after a crash its answer must be recognised.
            start = Start(weights, settled, self._membership.begin(member, weights))
            del self.newcomers[member]
            self._requests.ask(
                Kind.JOIN,
                node,
                self._seconds,
                member=member,
                round=request.round,
                start=start,
                delivery=self._escrow.start(self._state.packets, member),
            )

    def reset(self, member: int, reason: str) -> None:
        """Have a member start from a donor's weights, in place of what it has, if it has anything."""
        logger.warning("member %d starts anew: %s", member, reason)
        self._membership.missed(member, f"{reason}; it is to start anew")
        self.newcomers[member] = self._membership.nodes.pop(member)

    def meet_again(self, member: int, reason: str) -> None:
        """Ask a member once more who it is, with the next that are asked: another server has met it since."""
        self._membership.missed(member, reason)
        self._membership.nodes.pop(member, None)

    def why(self) -> str:
        """Return why nodes are not members, for people."""
        reasons = [*in_words(self._membership.reasons), *in_words(self._problems, "node")]
        return "; ".join(reasons) or "too few"

    def _waiting(self) -> dict[int, int]:
        """Return the newcomers that can be given weights now, and their nodes."""
        return {
            member: node
            for member, node in self.newcomers.items()
            if node in self._turn.connected and not self._requests.busy(node)
        }

    def _nobody_gives(self, waiting: Collection[int]) -> None:
        logger.warning("members %s wait to join: nobody can give them weights now", sorted(waiting))

    def _is_free(self, member: int) -> bool:
        return member < self._members and member not in self._membership.nodes

    def _problem(self, node: int, answer: Answer) -> str:
        """Return why a node cannot be a member; empty if it can."""
        membership, member = self._membership, answer.member
        taken = membership.nodes.get(member, self.newcomers.get(member, node))
        if member >= self._members:
            return f"its partition-id is {member}: use 0 to {self._members - 1}."
        if taken != node and taken in self._turn.connected:
            return (
                f"it is member {member}, which has joined already: give each node a partition-id of its own, "
                f"0 to {self._members - 1}."
            )
        if member in membership and membership[member].standing is Standing.SET_ASIDE:
            return f"member {member} was set aside: {membership[member].reason}"
        if answer.status is Status.NOT_JOINED:
            return ""
        if ahead := self._ahead(answer):
            return ahead
        if member not in membership and answer.initial != self._state.options.initial:
            return f"member {member} started from other weights than the server's."
        return ""

    def _ahead(self, answer: Answer) -> str:
        """Return what to do about a member that is ahead of the journal; empty if it is not."""
        if not (ahead := self._membership.ahead(answer)):
            return ""
        return (
            f"member {answer.member} is ahead of the server's journal ({ahead}): the journal is an older "
            "copy. Bring the newest one back, or start a run of another name."
        )

    def _is_active(self, member: int) -> bool:
        return member in self._membership and self._membership[member].standing is Standing.ACTIVE

    def _enter(self, node: int, answer: Answer) -> None:
        """Make a node's member one of the run's, unless the state that it holds is of no use."""
        membership, member = self._membership, answer.member
        membership.nodes[member] = node
        if member not in membership:
            if self._escrow.settled:
                self.reset(member, "it joined before the first exchange and never took part")
                return
            membership.enrol(member, Enrolment(answer.initial))
        elif membership[member].standing is Standing.GIVEN_UP:
            self.reset(member, f"it is back after it was given up ({membership[member].reason})")
            return
        elif reason := membership.inconsistent(member, answer):
            self.reset(member, reason)
            return
        membership.acknowledge(member, answer.applied)
