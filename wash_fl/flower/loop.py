"""Four steps, again and again: messages between a coordinator and Flower's nodes until a run is over."""

from collections.abc import Iterable
from typing import Protocol

from flwr.serverapp import Grid

from wash_fl.clock import Clock
from wash_fl.faults import points
from wash_fl.flower.outbox import Outbox
from wash_fl.flower.patience import patiently
from wash_fl.flower.pause import Pause
from wash_fl.flower.planes import Carrier
from wash_fl.flower.records import Arrays
from wash_fl.protocol.commands import AllCollected, Ask, Command, Remind, RoundBegan, RoundEnded, UseModel
from wash_fl.protocol.events import Nodes
from wash_fl.stream.guard import Guard


class Reports(Protocol):
    """Who is told what has come of a run."""

    def round_ended(self, ended: RoundEnded) -> None:
        """Take note that a round is over."""

    def use_model(self, member: int, arrays: Arrays) -> None:
        """Add a member's whole model to the average."""

    def take_mean(self) -> None:
        """Average what was added."""


class Loop:
    """Carries messages between a coordinator and the nodes of a grid.

    Parameters
    ----------
    grid : Grid
        Flower's way to the nodes.
    guard : Guard
        The coordinator.
    carrier : Carrier
        What carries exchanges.
    outbox : Outbox
        Where requests become messages.
    clock : Clock
        What waiting is measured by.
    reports : Reports
        Who is told what has come.
    """

    def __init__(  # noqa: PLR0917
        self, grid: Grid, guard: Guard, carrier: Carrier, outbox: Outbox, clock: Clock, reports: Reports
    ) -> None:
        self._grid = grid
        self._guard = guard
        self._carrier = carrier
        self._outbox = outbox
        self._clock = clock
        self._reports = reports

    def run(self) -> None:
        """Go on until the coordinator has nothing more to do.

        Raises
        ------
        RunError, StateError
            As the coordinator does.
        """
        clock, pause = self._clock, Pause(self._clock)
        while True:
            # Step 1: who is there, and what has come from them
            nodes = Nodes(frozenset(patiently(self._grid.get_node_ids, clock)))
            with self._guard.turn() as coordinator:
                coordinator.handle(nodes, now=clock.now())
            for reply in self._outbox.replies():
                with self._guard.turn() as coordinator:
                    commands = coordinator.handle(reply, now=clock.now())
                    self._carrier.execute(commands)
                    if not coordinator.is_out(reply.number):  # otherwise it was lost, and is sent again
                        pause.reset()
                self._execute(commands)
            # Step 2: what is to be done now
            with self._guard.turn() as coordinator:
                commands = coordinator.proceed(now=clock.now())
                self._carrier.execute(commands)
                done, until = coordinator.done, coordinator.next_deadline()
                outstanding = {each.number for each in coordinator.outstanding()}
            # Step 3: send it, and report
            self._execute(commands)
            self._outbox.keep(outstanding)
            if done:
                return
            # Step 4: wait
            if commands:
                self._carrier.changed()
            pause.wait(until)

    def _execute(self, commands: Iterable[Command]) -> None:
        """Do what the coordinator says; what is asked one after the other is sent at once."""
        asked: list[Ask] = []
        for command in commands:
            if isinstance(command, Ask):
                asked.append(command)
                continue
            self._send(asked)
            asked = []
            if isinstance(command, Remind):
                self._outbox.remind(command)
            elif isinstance(command, RoundBegan):
                points.reach("sent", exchange=command.number)
            elif isinstance(command, RoundEnded):
                self._reports.round_ended(command)
            elif isinstance(command, UseModel):
                self._reports.use_model(command.member, self._outbox.model)
                points.reach("collected")
            elif isinstance(command, AllCollected):
                self._reports.take_mean()
                points.reach("averaged")
        self._send(asked)

    def _send(self, asked: list[Ask]) -> None:
        for failed in self._outbox.send(asked):
            with self._guard.turn() as coordinator:
                coordinator.handle(failed, now=self._clock.now())
