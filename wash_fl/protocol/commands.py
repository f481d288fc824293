"""Commands: what a :class:`~wash_fl.protocol.coordinator.Coordinator` wants done."""

from dataclasses import dataclass

from wash_fl.protocol.escrow import Settlement
from wash_fl.protocol.messages import Request, ServerReply


@dataclass(frozen=True, eq=False)
class Ask:
    """Send a request.

    Attributes
    ----------
    request : Request
        What is asked.
    again : bool
        It was sent before, and is lost.
    left : float
        Seconds for which its answer is awaited.
    """

    request: Request
    again: bool = False
    left: float = 0.0


@dataclass(frozen=True, eq=False)
class Remind:
    """Send a node that owes the answer to a request something, whatever it is."""

    request: Request


@dataclass(frozen=True, eq=False)
class Tell:
    """Answer a member on its stream."""

    member: int
    reply: ServerReply


@dataclass(frozen=True)
class RoundBegan:
    """All requests of a round are out."""

    number: int


@dataclass(frozen=True)
class OfferTaken:
    """A member takes part in an exchange."""

    exchange: int


@dataclass(frozen=True, eq=False)
class Settled:
    """An exchange is settled, and in the journal; on streams, so many seconds after its first offer."""

    settlement: Settlement
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class RoundEnded:
    """A round is over.

    Attributes
    ----------
    round : int
        Its number, from 1.
    settlement : Settlement
        Who took part in its exchange or exchanges, and how far apart the members are.
    absent : tuple of int
        Members the run counts on that did not take part in the round.
    absent_because : dict of int to str
        Why each of them did not, and why others never joined.
    metrics : dict of int to dict of str to float
        What each member that answered said of its training.
    seconds : float
        How long the round took.
    """

    round: int
    settlement: Settlement
    absent: tuple[int, ...]
    absent_because: dict[int, str]
    metrics: dict[int, dict[str, float]]
    seconds: float


@dataclass(frozen=True)
class UseModel:
    """Add the model that came with this reply to the average."""

    member: int


@dataclass(frozen=True)
class AllCollected:
    """Every model that will come has come: take their mean."""


Command = Ask | Remind | Tell | RoundBegan | OfferTaken | Settled | RoundEnded | UseModel | AllCollected
