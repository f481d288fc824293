"""The server's process: the coordinator that Flower's strategy carries, from its start to its death."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from wash_fl.core.anchor import first_anchor
from wash_fl.core.identity import weights_sha256
from wash_fl.errors import RunError
from wash_fl.lab.search.device import Run
from wash_fl.lab.search.journal import WatchedStore
from wash_fl.lab.search.letters import Letter, Reply, Weights
from wash_fl.lab.search.moments import Fuse, Killed
from wash_fl.lab.search.setting import INITIAL
from wash_fl.lab.search.streams import Streams
from wash_fl.protocol.commands import Ask, Command, Tell, UseModel
from wash_fl.protocol.coordinator import Coordinator
from wash_fl.protocol.events import Event, Replied
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.messages import Kind, Status
from wash_fl.protocol.options import ServerOptions
from wash_fl.protocol.over_streams import OverStreams

ROUND: Final = 100.0
"""Seconds that a round waits at most."""

DEADLINE: Final = 10.0
"""Seconds that an exchange on streams waits at most."""


class ServerProcess:
    """Runs a coordinator, does what it says, and may die over it at any moment.

    Parameters
    ----------
    run : Run
        The run.
    give_up_after : int
        Rounds in a row that a member may be away.
    journal : WatchedStore
        Where its decisions are.
    fuse : Fuse
        When it dies; the journal has the same.
    streams : Streams
        The members' calls.
    send : callable
        Sends a request.
    faults : Counter of str
        What goes wrong with it is counted here.
    checked : callable
        Called after everything that it does.

    Attributes
    ----------
    coordinator : Coordinator or None
        What decides; None if it is dead.
    number : int
        How many there were: that of this one.
    in_vain : int
        How many in a row ended for want of members, and had written nothing to the journal.
    collected : dict of int to Weights
        The models that it uses for the average, by member.
    """

    def __init__(
        self,
        run: Run,
        give_up_after: int,
        journal: WatchedStore,
        fuse: Fuse,
        *,
        streams: Streams,
        send: Callable[[Letter], None],
        faults: Counter[str],
        checked: Callable[[], None],
    ) -> None:
        self.coordinator: Coordinator | None = None
        self.number = self.in_vain = self._writes = 0
        self.collected: dict[int, Weights] = {}
        self.fuse = fuse
        self._run = run
        self._options = ServerOptions(
            initial=weights_sha256(INITIAL),
            timeout=ROUND,
            min_members=2,
            start_timeout=1.0,
            give_up_after=give_up_after,
            exchange_deadline=DEADLINE,
        )
        self._journal = journal
        self._streams = streams
        self._send = send
        self._faults = faults
        self._checked = checked
        self._given: dict[str, Weights] = {weights_sha256(INITIAL): INITIAL}
        self._reply: Reply | None = None

    @property
    def offered(self) -> frozenset[int]:
        """The members whose offers it holds, in an exchange that is open."""
        return frozenset() if self.coordinator is None else self.coordinator.state.escrow.offered

    def start(self, now: float) -> None:
        """Begin as a new process."""
        self.fuse.light(None)
        self._journal.reopen()
        self.number += 1
        self._writes = self._journal.writes
        self.collected = {}
        terms, layout = self._run.terms, self._run.layout
        first = first_anchor(layout, INITIAL) if terms.exchange.anchored else None
        self.coordinator = Coordinator(
            terms,
            layout,
            Journal(self._journal),
            replace(self._options, server=f"process {self.number}"),
            now=now,
            first=first,
        )

    def die(self) -> None:
        """Be gone, with all that is in memory and all calls."""
        self.coordinator = None
        self._streams.server_dies()
        self._journal.crash()

    def does(self, step: Callable[[Coordinator], Iterable[Command]], moment: str = "") -> None:
        """Take a step if it lives, and do what the coordinator says.

        Parameters
        ----------
        step : callable
            Tells the coordinator something, and returns its commands.
        moment : str
            The moment after that, in which it may die; by default none.
        """
        if self.coordinator is None:
            return
        try:
            self._execute(step(self.coordinator))
            if moment:
                self.fuse.burn(moment)
        except Killed as death:
            self._faults[f"server killed {death.moment}"] += 1
            self.die()
        except RunError:
            # Too few members: somebody starts it again when they are back.
            self._faults["run ended for want of members"] += 1
            self.in_vain = self.in_vain + 1 if self._journal.writes == self._writes else 0
            self.die()
        finally:
            self._checked()

    def hears(self, event: Event, now: float) -> None:
        """Be told of something."""
        self.does(lambda coordinator: coordinator.handle(event, now=now))

    def takes(self, reply: Reply, now: float) -> None:
        """Take a reply, if it is to a request of this process: another knows none of it."""
        if reply.server != self.number:
            return
        name = ""
        if reply.answer.status is Status.DONE and reply.weights is not None:
            name = weights_sha256(reply.weights)
            self._given[name] = reply.weights
        self._reply = reply
        event = Replied(reply.number, reply.answer, name, reply.metrics)
        self.does(lambda coordinator: coordinator.handle(event, now=now), "after taking a reply")

    def _execute(self, commands: Iterable[Command]) -> None:
        """Do what the coordinator says, one after the other; the process may die between any two."""
        for command in commands:
            if isinstance(command, Ask):
                self.fuse.burn("before sending a request")
                start = command.request.start
                weights = None if start is None else self._given[start.weights]
                if command.again:
                    self._faults["request repeated"] += 1
                self._send(Letter(command.request, self.number, weights, self._token(command)))
            elif isinstance(command, Tell):
                self.fuse.burn("before answering on a stream")
                self._streams.tell(command.member, command.reply)
            elif isinstance(command, UseModel):
                assert self._reply is not None and self._reply.weights is not None, (
                    "a model is used, and none came"
                )
                self.collected[command.member] = self._reply.weights
                self.fuse.burn("while collecting")

    def _token(self, command: Ask) -> bytes:
        """Return what a member proves itself by on streams; it travels with the request to train."""
        exchanges = None if self.coordinator is None else self.coordinator.exchanges
        if command.request.kind is not Kind.TRAIN or not isinstance(exchanges, OverStreams):
            return b""
        return exchanges.token(command.request.member)
