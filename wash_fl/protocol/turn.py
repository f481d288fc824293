"""What the parts of a coordinator share while it handles an event."""

from collections.abc import Generator
from dataclasses import dataclass, field

from wash_fl.protocol.commands import Command

Flow = Generator[float, None, None]
"""What is to be done, step by step: yields until when, by the clock, there is nothing to do but wait."""


@dataclass
class Turn:
    """The moment of an event, and the commands that it gives rise to.

    Attributes
    ----------
    now : float
        Seconds, of the caller's clock.
    connected : frozenset of int
        The nodes that are connected.
    commands : list of Command
        What is to be done, in order.
    """

    now: float = 0.0
    connected: frozenset[int] = frozenset()
    commands: list[Command] = field(default_factory=list)

    def take_commands(self) -> list[Command]:
        """Return the commands, and begin with none."""
        commands, self.commands = self.commands, []
        return commands
