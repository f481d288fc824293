"""How clients become members: at the beginning all from the same weights, later from a donor's.

A node is first asked who it is. One that holds a state of this run goes on with it; one that does not
gets weights to start from: the run's initial ones before the first exchange, and from then on those that a
member holds at that moment, for the initial ones would be far from everybody's by then.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid
from safetensors.numpy import load_file

from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow
from wash_fl.core.identity import weights_sha256
from wash_fl.core.journal import Enrolment, Standing
from wash_fl.core.layout import Layout
from wash_fl.core.run_packets import RunPackets
from wash_fl.core.terms import Terms
from wash_fl.errors import RunError
from wash_fl.planes import records
from wash_fl.planes.arrays import Spec
from wash_fl.planes.asking import understand
from wash_fl.planes.collection import done, model_of
from wash_fl.planes.post import Errand, Post
from wash_fl.planes.records import Answer, Arrays, Status
from wash_fl.planes.roster import Roster
from wash_fl.planes.traffic import Traffic

logger = logging.getLogger("flwr.wash_fl")


@dataclass(frozen=True)
class JoinRequest:
    """What a client is asked to agree to.

    Attributes
    ----------
    run : bytes
        Identity of the run.
    terms : Terms
        The terms of the run.
    layout : Layout
        What is exchanged; the client's model must have the same.
    initial : str
        Hash of the weights that all members start from, which each of them confirms.
    model : mapping
        Shape and dtype of each array of a member's whole model, by name.
    """

    run: bytes
    terms: Terms
    layout: Layout
    initial: str
    model: Spec

    def delivery(self, escrow: Escrow, member: int) -> bytes:
        """Return the packet that waits for a member; empty if none does."""
        draw = Draw(self.terms.seed, self.layout, self.terms.schedule)
        return RunPackets(self.run, draw).delivery(member, escrow.delivery(member))

    def to(self, node: int, ttl: float, start: "Start | None" = None) -> Message:
        """Return the request to a node: who are you, and if it holds nothing yet, where to start."""
        fields = {
            "terms": self.terms.to_json(),
            "layout": records.layout_to_json(self.layout),
            "exchange": 0 if start is None else start.exchange,
            "incarnation": 0 if start is None else start.incarnation,
        }
        arrays = None if start is None else records.array_record(start.arrays)
        return records.request(node, records.JOIN, fields, ttl, arrays)


@dataclass(frozen=True)
class Start:
    """Where a member starts.

    Attributes
    ----------
    arrays : dict of str to ndarray
        The weights.
    exchange : int
        The last settled exchange: no delivery up to it is for this member.
    incarnation : int
        Number of this start; a state of a lower one is replaced.
    """

    arrays: Arrays
    exchange: int = 0
    incarnation: int = 0


class Reception:
    """Meets nodes and makes members of them, when a run begins and while it goes on."""

    def __init__(
        self,
        grid: Grid,
        request: JoinRequest,
        roster: Roster,
        escrow: Escrow,
        post: Post,
        *,
        traffic: Traffic,
        timeout: float,
    ) -> None:
        self._grid = grid
        self._request = request
        self._roster = roster
        self._escrow = escrow
        self._post = post
        self._traffic = traffic
        self._timeout = timeout
        self._newcomers: dict[int, int] = {}
        self._problems: list[str] = []

    @property
    def newcomers(self) -> set[int]:
        """The members that wait for weights to start from."""
        return set(self._newcomers)

    def begin(self, nodes: Sequence[int], initial: Path, *, wanted: int) -> None:
        """Make members of the nodes that are connected at the beginning, or again after a restart.

        Raises
        ------
        RunError
            If fewer than ``wanted`` join.
        """
        resumed = bool(self._roster.active() or self._escrow.settled)
        if resumed:
            self._meet([self._request.to(node, self._timeout) for node in nodes])
            nodes = list(self._newcomers.values())
        if not self._escrow.settled:
            start = Start(load_file(initial))
            self._newcomers.clear()
            self._meet([self._request.to(node, self._timeout, start) for node in nodes])
        met = len(self._roster.nodes) + len(self._newcomers)
        if met < wanted:
            raise RunError(
                f"{met} of {wanted} members joined: {self._problems[0] if self._problems else 'too few.'}"
            )
        how = "go on" if resumed else "joined, with the same initial weights"
        logger.info("members %s %s", sorted(self._roster.nodes), how)

    def greet(self, connected: Collection[int], number: int) -> None:
        """Ask nodes that have not been met who they are; they answer while the round goes on."""
        self._roster.forget_given_up(connected)
        known = {*self._roster.nodes.values(), *self._newcomers.values()}
        unknown = [
            node
            for node in sorted(set(connected) - known - self._roster.strangers)
            if not self._post.busy(node)
        ]
        self._post.send([(-1, node, self._request.to(node, self._timeout)) for node in unknown], number)

    def met(self, errand: Errand, reply: Message) -> None:
        """Take the reply of a node to ``greet`` or ``admit``."""
        self._answered(errand, reply)

    def anew(self, member: int, reason: str) -> None:
        """Have a member start from a donor's weights, in place of what it has, if it has anything."""
        logger.warning("member %d starts anew: %s", member, reason)
        self._newcomers[member] = self._roster.nodes.pop(member)

    def admit(self, connected: Collection[int], number: int) -> None:
        """Let newcomers start from the weights that another member holds now."""
        waiting = {
            member: node
            for member, node in self._newcomers.items()
            if node in connected and not self._post.busy(node)
        }
        if not waiting:
            return
        donor = self._donor(connected)
        arrays = None if donor is None else self._donation(donor)
        if arrays is None:
            logger.warning("members %s wait to join: nobody can give them weights now", sorted(waiting))
            return
        settled, sha256 = self._escrow.settled, weights_sha256(arrays)
        for member, node in sorted(waiting.items()):
            logger.warning(
                "member %d joins after exchange %d with the weights of member %d: the initial ones would be "
                "far from everybody's by now",
                member,
                settled,
                donor,
            )
            # Written down first: after a crash its answer must be recognised.
            start = Start(arrays, settled, self._roster.begin(member, sha256))
            self._post.send([(member, node, self._request.to(node, self._timeout, start))], number)
            del self._newcomers[member]

    def _donor(self, connected: Collection[int]) -> int | None:
        """Return who is to give its weights: of those that took part last, the first."""
        free = [member for member, node in self._roster.here(connected).items() if not self._post.busy(node)]
        return min(free, key=lambda member: (-self._roster.took_part[member], member), default=None)

    def _donation(self, donor: int) -> Arrays | None:
        node = self._roster.nodes[donor]
        fields = {"run": self._request.run, "delivery": self._request.delivery(self._escrow, donor)}
        request = records.request(node, records.COLLECT, fields, self._timeout)
        for _, reply, given in done(self._post, {donor: request}):
            self._traffic.model_up(donor, request, reply)
            if reason := self._roster.astray(donor, given):
                self.anew(donor, reason)
                return None
            arrays = model_of(donor, reply, self._request.model)
            if arrays is not None:
                self._roster.acknowledge(donor, given.applied)
            return arrays
        return None

    def _meet(self, requests: list[Message]) -> None:
        to = [(-1, request.metadata.dst_node_id, request) for request in requests]
        for errand, reply in self._post.ask(to, len(to)):
            self._answered(errand, reply)

    def _answered(self, errand: Errand, reply: Message | None) -> None:
        node, request = errand.node, errand.request
        given = understand(f"node {node}", "the request to join", reply)
        if given is None:
            self._problems.append(f"node {node} did not answer as a member; see the log.")
            return
        if reply is not None and given.status is not Status.REFUSED:
            self._traffic.asked(given.member, request, reply)
        problem = given.reason if given.status is Status.REFUSED else self._problem(node, given)
        if problem:
            self._roster.strangers.add(node)
            self._problems.append(problem)
            logger.warning("node %d is left out: %s", node, problem)
        elif given.status is Status.NOT_JOINED:
            self._newcomers[given.member] = node
        else:
            self._seat(node, given)

    def _problem(self, node: int, given: Answer) -> str:
        """Return why a node cannot be a member; empty if it can."""
        roster, member = self._roster, given.member
        taken = roster.nodes.get(member, self._newcomers.get(member, node))
        if member >= self._request.terms.members:
            return f"its partition-id is {member}: use 0 to {self._request.terms.members - 1}."
        if taken != node and taken in set(self._grid.get_node_ids()):
            return (
                f"it is member {member}, which has joined already: give each node a partition-id of its own, "
                f"0 to {self._request.terms.members - 1}."
            )
        if member in roster and roster[member].standing is Standing.SET_ASIDE:
            return f"member {member} was set aside: {roster[member].reason}"
        if given.status is Status.NOT_JOINED:
            return ""
        if given.applied > self._escrow.settled or given.round > roster.rounds + 1:
            return (
                f"member {member} is ahead of the server's journal (round {given.round}, applied "
                f"{given.applied}; the journal ends at round {roster.rounds}, exchange "
                f"{self._escrow.settled}): the journal is an older "
                "copy. Bring the newest one back, or start a run of another name."
            )
        if member not in roster and given.initial != self._request.initial:
            return f"member {member} started from other weights than the server's."
        return ""

    def _seat(self, node: int, given: Answer) -> None:
        """Give a member that holds a state of this run its place, unless that state is of no use."""
        roster, member = self._roster, given.member
        roster.seat(member, node)
        if member not in roster:
            if self._escrow.settled:
                self.anew(member, "it joined before the first exchange and never took part")
                return
            roster.enrol(member, Enrolment(given.initial))
        elif roster[member].standing is Standing.GIVEN_UP:
            self.anew(member, f"it is back after it was given up ({roster[member].reason})")
            return
        elif reason := roster.astray(member, given):
            self.anew(member, reason)
            return
        roster.acknowledge(member, given.applied)
