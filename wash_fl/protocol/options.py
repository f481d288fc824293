"""What a run's server decides by."""

from dataclasses import dataclass, fields
from typing import Any, Final

from wash_fl.config import FleetConfig

_DEFAULT: Final = FleetConfig()


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """How a server gets along with its members: those that are away, late, or not to be trusted, and all.

    Attributes
    ----------
    min_members : int
        Members without whom a round does not start; 0 means all at the beginning, and any 2 later.
    start_timeout : float
        Seconds to wait for the clients to connect, and for one that is lost while it works to be back.
    deadline_spread : float
        How many times the members' usual spread a round waits beyond their median, but never longer than its
        timeout; 0 waits that long (:class:`~wash_fl.protocol.deadline.Deadline`).
    give_up_after : int
        Rounds in a row that a member may be away before the run goes on without it; 0 never gives one up.
    outlier_factor : float
        Set a member aside whose values are so many times farther from the others' than these spread; 0 never
        does (:mod:`wash_fl.protocol.outliers`).
    exchange_deadline : float
        Seconds an exchange on the stream plane waits for the members that are expected in that time.
    fallback : bool
        Where no two members reach the stream port, slices travel in Flower's messages, once per round.
    evaluate_every : int
        Members are to evaluate themselves every so many rounds; 0 never.
    """

    min_members: int = _DEFAULT.min_members
    start_timeout: float = _DEFAULT.start_timeout
    deadline_spread: float = _DEFAULT.deadline_spread
    give_up_after: int = _DEFAULT.give_up_after
    outlier_factor: float = _DEFAULT.outlier_factor
    exchange_deadline: float = _DEFAULT.exchange_deadline
    fallback: bool = _DEFAULT.fallback == "round"
    evaluate_every: int = 0

    def shared(self) -> dict[str, Any]:
        """Return these options by name, for others that have them, too."""
        return {each.name: getattr(self, each.name) for each in fields(FleetOptions)}


@dataclass(frozen=True, kw_only=True)
class ServerOptions(FleetOptions):
    """What a server decides by: the options of its fleet, and what it knows of its run.

    Attributes
    ----------
    initial : str
        Hash of the weights that all members start from.
    timeout : float
        The longest a round waits, and for how long any other answer is awaited, seconds.
    recalibrate : bool
        The clients re-estimate the averaged model's BatchNorm statistics.
    server : str
        What the server calls itself, from its start to its end, and no other does; empty if its members need
        not tell it from another.
    """

    initial: str
    timeout: float = _DEFAULT.round_timeout
    recalibrate: bool = False
    server: str = ""
