"""Events: what goes into a :class:`~wash_fl.protocol.coordinator.Coordinator`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wash_fl.protocol.messages import Answer, Failure


@dataclass(frozen=True)
class Nodes:
    """These nodes are connected now."""

    nodes: frozenset[int]


@dataclass(frozen=True, eq=False)
class Replied:
    """The reply to a request.

    Attributes
    ----------
    number : int
        That of the request.
    answer : Answer or Failure
        What it says, or why it is of no use.
    model : str
        After ``collect`` and ``donate``: what the model that came with it is called, by its hash after
        ``donate``; empty if none came, or none that is of the run.
    metrics : mapping of str to float
        What the member reports.
    """

    number: int
    answer: Answer | Failure
    model: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Hello:
    """A member calls on a stream."""

    version: int
    run: bytes
    layout: bytes
    member: int
    token: bytes
    round: int
    applied: int
    initial: str
    incarnation: int


@dataclass(frozen=True, eq=False)
class Offered:
    """A member that was let in offers on its stream."""

    member: int
    exchange: int
    applied: int
    packet: bytes


@dataclass(frozen=True)
class Farewell:
    """A member has ended its round, and hangs up."""

    member: int
    applied: int


@dataclass(frozen=True)
class CallLost:
    """A member's stream is broken."""

    member: int


@dataclass(frozen=True)
class TimeUp:
    """Time has passed, and whatever has come was told."""


Event = Nodes | Replied | Hello | Offered | Farewell | CallLost | TimeUp
