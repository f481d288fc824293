"""The server's process: the real escrow, roster and packets, asking and taking as the strategy does.

It follows :mod:`wash_fl.planes.joining`, :mod:`wash_fl.planes.desk` and :mod:`wash_fl.strategy` step by step,
without Flower. All it knows when it begins is in the journal.
"""

from collections.abc import Callable, Collection, Iterator

from wash_fl.bench.fault_fleet.device import Run
from wash_fl.bench.fault_fleet.journal import WatchedJournal
from wash_fl.bench.fault_fleet.messages import Kind, Reply, Request, Start, Status, Weights
from wash_fl.bench.fault_fleet.moments import Fuse
from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow, Settlement
from wash_fl.core.identity import weights_sha256
from wash_fl.core.journal import Enrolment, Standing
from wash_fl.core.packet import PacketError
from wash_fl.core.run_packets import RunPackets
from wash_fl.planes.roster import Roster

OUTLIER_FACTOR = 10.0
FEWEST = 2


class Server:
    """A server from its start to its death.

    Parameters
    ----------
    run : Run
        The run.
    draw : Draw
        Its coordinates.
    initial : dict of str to ndarray
        The weights that all start from.
    journal : WatchedJournal
        Open.
    fuse : Fuse
        When it dies.
    numbers : iterator of int
        Numbers for requests that no other request of the run has.
    post : callable
        Puts a request on its way.
    ask : callable
        Asks a member and waits for its reply; None if none comes.

    Attributes
    ----------
    out : dict of int to Request
        The requests that were not answered yet, by number.
    opened : int
        The exchange that is open; 0 between rounds.
    newcomers : set of int
        Members that wait for weights to start from.
    """

    def __init__(
        self,
        run: Run,
        draw: Draw,
        initial: Weights,
        journal: WatchedJournal,
        *,
        fuse: Fuse,
        numbers: Iterator[int],
        post: Callable[[Request], None],
        ask: Callable[[Request], Reply | None],
    ) -> None:
        self._run = run
        self._packets = RunPackets(run.identity, draw)
        self._initial = initial
        self._initial_hash = weights_sha256(initial)
        self._fuse = fuse
        self._numbers = numbers
        self._post = post
        self._ask = ask
        self.escrow = Escrow(draw, run.terms.exchange, journal, OUTLIER_FACTOR)
        self.roster = Roster(journal, self.escrow)
        self.out: dict[int, Request] = {}
        self.opened = 0
        self.newcomers: set[int] = set()
        self._last: Request | None = None

    def greet(self, present: Collection[int]) -> None:
        """Ask members that were not met who they are; before the first exchange, with weights."""
        unknown = [
            member
            for member in sorted(present)
            if member not in self.roster.nodes
            and member not in self.newcomers
            and member not in self.roster.strangers
            and not self.busy(member)
        ]
        begins = not self.escrow.settled and not self.opened
        start = Start(self._initial) if begins else None
        for member in unknown:
            self._send(Request(next(self._numbers), member, Kind.JOIN, start=start))

    def admit(self, present: Collection[int]) -> None:
        """Let newcomers start from the weights that another member holds now."""
        waiting = [member for member in sorted(self.newcomers) if member in present and not self.busy(member)]
        free = [member for member in self.roster.here(present) if not self.busy(member)]
        if not waiting or not free:
            return
        donor = min(free, key=lambda member: (-self.roster.took_part[member], member))
        given = self._ask(self._request(donor, Kind.COLLECT))
        if given is None or given.weights is None or given.status is not Status.DONE:
            return
        if self.roster.astray(donor, given):
            self._anew(donor)
            return
        self.roster.acknowledge(donor, given.applied)
        settled, initial = self.escrow.settled, weights_sha256(given.weights)
        for member in waiting:
            start = Start(given.weights, settled, self.roster.begin(member, initial))
            self.newcomers.discard(member)
            self._send(Request(next(self._numbers), member, Kind.JOIN, start=start))

    def open(self, present: Collection[int]) -> None:
        """Begin the next round, if there are enough members for one."""
        free = [member for member in self.roster.here(present) if not self.busy(member)]
        if self.opened or len(free) < FEWEST:
            return
        number = self.escrow.settled + 1
        requests = [self._request(member, Kind.TRAIN, number) for member in free]
        self.escrow.open(number, self.roster.active())
        self.opened = number
        for request in requests:
            self._send(request)

    def repeat(self, member: int) -> bool:
        """Ask once more who was asked in this round; False if there is no round, or no such member."""
        if not self.opened or member not in self.roster.here([member]):
            return False
        self._send(self._request(member, Kind.TRAIN, self.opened))
        return True

    def take(self, reply: Reply) -> None:
        """Take a reply; one to nothing that was asked, or whose time is over, is ignored."""
        request = self.out.pop(reply.number, None)
        if request is None and self._last is not None and self._last.number == reply.number:
            request = self._last
        if request is None:
            return
        self._last = request
        if request.kind is Kind.JOIN:
            self._joined(request.member, reply)
        else:
            self._trained(request, reply)
        self._fuse.burn("after taking a reply")

    def settle(self) -> Settlement | None:
        """End the round."""
        if not self.opened:
            return None
        settlement = self.escrow.settle()
        self.opened = 0
        for member, reason in settlement.aside.items():
            self.roster.drop(member, Standing.SET_ASIDE, reason)
        return settlement

    def give_up(self, member: int) -> bool:
        """Go on without a member; False if it does not count anyway."""
        if member not in self.roster.active():
            return False
        self.roster.drop(member, Standing.GIVEN_UP, "it was away")
        self.roster.nodes.pop(member, None)
        return True

    def expire(self, keep: Collection[int]) -> None:
        """Forget the requests that nobody will answer any more: all but those with these numbers."""
        self.out = {number: request for number, request in self.out.items() if number in keep}

    def busy(self, member: int) -> bool:
        """Whether a member has work outstanding."""
        return any(request.member == member for request in self.out.values())

    def collect(self, present: Collection[int]) -> dict[int, Weights]:
        """Ask every member for its model; those that do not answer are left out."""
        found = {}
        for member in self.roster.here(present):
            given = self._ask(self._request(member, Kind.COLLECT))
            if given is not None and given.status is Status.DONE and given.weights is not None:
                if self.roster.astray(member, given):
                    continue
                self.roster.acknowledge(member, given.applied)
                found[member] = given.weights
            self._fuse.burn("while collecting")
        return found

    def _joined(self, member: int, reply: Reply) -> None:
        roster = self.roster
        aside = member in roster and roster[member].standing is Standing.SET_ASIDE
        if aside or reply.status is Status.REFUSED or reply.member != member:
            roster.strangers.add(member)
        elif reply.status is Status.NOT_JOINED:
            self.newcomers.add(member)
        else:
            self._seat(member, reply)

    def _seat(self, member: int, reply: Reply) -> None:
        roster = self.roster
        roster.seat(member, member)
        if member not in roster:
            if self.escrow.settled or reply.initial != self._initial_hash:
                self._anew(member)
                return
            roster.enrol(member, Enrolment(reply.initial))
        elif roster[member].standing is Standing.GIVEN_UP or roster.astray(member, reply):
            self._anew(member)
            return
        roster.acknowledge(member, reply.applied)

    def _trained(self, request: Request, reply: Reply) -> None:
        member, roster = request.member, self.roster
        if member not in roster.nodes or reply.status is Status.REFUSED or reply.member != member:
            return
        if reply.status is Status.NOT_JOINED or roster.astray(member, reply):
            self._anew(member)
            return
        roster.acknowledge(member, reply.applied)
        roster.took_part[member] = max(roster.took_part[member], request.round)
        if not reply.offer:
            return
        try:
            values = self._packets.read_offer(reply.offer, member, request.round)
        except PacketError:
            return
        self.escrow.offer(member, request.round, values)

    def _anew(self, member: int) -> None:
        self.newcomers.add(member)
        self.roster.nodes.pop(member, None)

    def _request(self, member: int, kind: Kind, number: int = 0) -> Request:
        return Request(next(self._numbers), member, kind, number, self._delivery(member))

    def _delivery(self, member: int) -> bytes:
        return self._packets.delivery(member, self.escrow.delivery(member))

    def _send(self, request: Request) -> None:
        self._fuse.burn("before sending a request")
        self.out[request.number] = request
        self._post(request)
