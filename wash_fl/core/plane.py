"""What is different from plane to plane: how often members exchange, and what that asks of everybody else."""

from dataclasses import dataclass
from typing import Final

from wash_fl.config import ExchangeConfig


@dataclass(frozen=True, kw_only=True)
class Plane:
    """How slices travel, as far as anybody has to know who does not carry them.

    Attributes
    ----------
    name : str
        As in the option exchange-plane.
    once_per_round : bool
        A round has one exchange, at its end, and a member's offer is its reply.
    logged : bool
        What a member exchanges between two snapshots is in a log, from which it goes on in the middle of a
        round.
    at_once : bool
        All members have to be at work at the same time.
    synchronous : str
        How SQLite writes the journal: FULL, or NORMAL where exchanges are many. What a power cut may take
        then, the members' own record tells.
    """

    name: str
    once_per_round: bool
    logged: bool
    at_once: bool
    synchronous: str

    def steps_between(self, config: ExchangeConfig, local_steps: int) -> int:
        """Return the optimizer steps between two exchanges."""
        return local_steps if self.once_per_round else config.every

    def exchanges(self, config: ExchangeConfig, rounds: int, local_steps: int) -> int:
        """Return how many exchanges a run has; at least one."""
        return rounds if self.once_per_round else max(1, rounds * local_steps // config.every)


ROUND: Final = Plane(name="round", once_per_round=True, logged=False, at_once=False, synchronous="FULL")
STREAM: Final = Plane(name="stream", once_per_round=False, logged=True, at_once=True, synchronous="NORMAL")

_PLANES: Final = {each.name: each for each in (ROUND, STREAM)}


def plane_of(config: ExchangeConfig) -> Plane:
    """Return the plane of a run's exchanges."""
    return _PLANES[config.exchange_plane]
