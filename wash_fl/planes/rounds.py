"""A round as the server lives it: who is asked, how long it waits, and what comes too late."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from wash_fl.core.journal import Standing
from wash_fl.errors import RunError
from wash_fl.faults import points
from wash_fl.planes import records
from wash_fl.planes.clock import Clock, Pause
from wash_fl.planes.deadline import Deadline
from wash_fl.planes.joining import Reception
from wash_fl.planes.post import Errand, Post
from wash_fl.planes.roster import Roster

logger = logging.getLogger("flwr.wash_fl")

FEWEST = 2
"""Members without whom there is nothing to exchange."""

PATIENCE = 3
"""How many times a round's deadline Flower keeps a request for a member that is late."""

TakeLate = Callable[[Errand, Message], None]


@dataclass
class Rounds:
    """Sends the requests of one round after the other, and takes whatever comes back.

    Attributes
    ----------
    grid : Grid
        Flower's way to the nodes.
    roster : Roster
        The members.
    reception : Reception
        Where nodes become members.
    post : Post
        What is on its way.
    deadline : Deadline
        How long a round waits.
    last_round : int
        Rounds in the run.
    timeout : float
        The longest a round waits, seconds.
    min_members : int
        Members without whom a round does not start; 0 for the fewest possible.
    give_up_after : int
        Rounds in a row that a member may be away; 0 for any number.
    take_late : callable
        Gets the replies to requests of earlier rounds.
    clock : Clock
        What waiting is measured by.
    asked : dict of str to Errand
        The requests of the current round by message id.
    began : float
        When that round began, in seconds of the clock.
    """

    grid: Grid
    roster: Roster
    reception: Reception
    post: Post
    deadline: Deadline
    last_round: int
    timeout: float
    min_members: int
    give_up_after: int
    take_late: TakeLate
    clock: Clock
    asked: dict[str, Errand] = field(default_factory=dict)
    began: float = 0.0

    def gather(self, number: int) -> dict[int, int]:
        """Return the node of each member that can be asked, once there are enough of them.

        Raises
        ------
        RunError
            If there are still too few after ``timeout`` seconds.
        """
        self._give_up(number)
        limit = self.clock.now() + self.timeout
        needed = max(self.min_members, FEWEST)
        pause = Pause(self.clock)
        while True:
            self._news()
            connected = set(self.grid.get_node_ids())
            self.reception.admit(connected, number)
            here = self.roster.here(connected)
            free = {member: node for member, node in here.items() if not self.post.busy(node)}
            if len(free) >= needed:
                return free
            if self.clock.now() >= limit:
                raise RunError(
                    f"round {number}: {len(free)} of the {needed} members that it needs were there within "
                    f"{self.timeout:g} s. Bring the others back, or lower min-members, and run again with "
                    "the same run-name: it goes on from here."
                )
            self.reception.greet(connected, number)
            pause.wait(limit)

    def ttl(self) -> float:
        """Return how long Flower is to keep a round's request, seconds."""
        return min(self.timeout, PATIENCE * self.deadline.seconds())

    def replies(self, number: int, requests: dict[int, Message]) -> Iterator[Message]:
        """Send a round's requests, by member, and yield the replies until all are in or it is too late."""
        nodes = self.roster.nodes
        self.began = self.clock.now()
        self.asked = {}
        to = [(member, nodes[member], request) for member, request in requests.items()]
        for errand in self.post.send(to, number):
            self.asked[errand.request.metadata.message_id] = errand
        points.reach("sent", exchange=number)
        self.reception.greet(set(self.grid.get_node_ids()), number)
        pause = Pause(self.clock)
        answered = 0
        while True:
            for errand, reply in self.post.replies(self.deadline.late):
                pause.reset()
                if errand.kind != records.TRAIN or errand.round != number:
                    self._not_of_this_round(errand, reply)
                    continue
                answered += 1
                if not reply.has_error():
                    self._took(errand)
                self.asked[reply.metadata.reply_to_message_id] = errand
                yield reply
            # Longer than members usually take only as long as there are too few of them.
            enough = answered >= max(self.min_members, FEWEST)
            limit = self.began + (self.deadline.seconds() if enough else self.timeout)
            if not self.post.waiting(records.TRAIN, number) or self.clock.now() >= limit:
                break
            pause.wait(limit)
        self.post.abandon(number)

    def assemble(self, patience: float) -> dict[int, int]:
        """Return the node of each member that can be collected.

        Members that still work on a request are waited for, for a node answers nothing else meanwhile; and
        for ``patience`` seconds those that are not connected, for who is missing now is not in the average;
        but not those that were missing in the last two rounds already.
        """
        began = self.clock.now()
        lately = {
            member for member in self.roster.active() if self.roster.took_part[member] >= self.last_round - 1
        }
        pause = Pause(self.clock)
        while True:
            self._news()
            connected = set(self.grid.get_node_ids())
            here = self.roster.here(connected)
            missing = lately - here.keys() - self.reception.newcomers
            limit = began + max(
                self.timeout if self.post.waiting(records.TRAIN) else 0.0, patience if missing else 0.0
            )
            if self.clock.now() >= limit:
                return here
            self.reception.greet(connected, self.last_round)
            pause.wait(limit)

    def _news(self) -> None:
        """Take what has come back from earlier rounds, and forget what nobody will answer any more."""
        for errand, reply in self.post.replies(self.deadline.late):
            self._not_of_this_round(errand, reply)
        self.post.expired()

    def _not_of_this_round(self, errand: Errand, reply: Message) -> None:
        if errand.kind == records.JOIN:
            self.reception.met(errand, reply)
            return
        seconds = self._took(errand)
        logger.warning(
            "member %d: its reply to round %d came after %.0f s, too late (with local-seconds slow and fast "
            "devices finish together)",
            errand.member,
            errand.round,
            seconds,
        )
        self.take_late(errand, reply)

    def _took(self, errand: Errand) -> float:
        """Take note of how long a member took, as far as its answer tells, and return it."""
        seconds = self.clock.now() - errand.sent
        if not self.post.reminded(errand.node):
            self.deadline.took(errand.member, seconds)
        return seconds

    def _give_up(self, number: int) -> None:
        for member in self.roster.active():
            away = number - 1 - self.roster.took_part[member]
            if self.give_up_after and away >= self.give_up_after:
                reason = f"it did not take part in {away} rounds in a row"
                self.roster.drop(member, Standing.GIVEN_UP, reason)
