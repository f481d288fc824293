"""Where the parts of a fleet on this machine are: on its loopback interface, or in networks of their own."""

from dataclasses import dataclass
from typing import Final

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True)
class Hosts:
    """Where the SuperLink listens, and how nodes come to it.

    Whoever starts the fleet must be where its SuperLink is.

    Attributes
    ----------
    listen : str
        What the SuperLink, and a run's server of streams, listen on.
    address : str
        Under which nodes reach them.
    ways : tuple of tuple of str
        For each node, the words before a command that let it run on the node's machine, such as
        ``("nsenter", "--net=/run/netns/device-0")``; none at all if that is this machine.
    """

    listen: str = LOOPBACK
    address: str = LOOPBACK
    ways: tuple[tuple[str, ...], ...] = ()

    def way(self, member: int) -> tuple[str, ...]:
        """Return the words before a command that let it run on a node's machine."""
        return self.ways[member] if self.ways else ()
