"""How probable an exchange is, over the depth of the model and over the run; and from when on it averages.

Only +, -, *, / on floats are used, which IEEE 754 rounds alike on every machine: an x86 server and an
Arm device must agree on the last bit, and a C library's ``cos`` or ``pow`` need not.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig, RunConfig
from wash_fl.core.layout import Layout
from wash_fl.core.plane import plane_of

ONE = 2**32
"""Probability 1 in the fixed point of :meth:`Schedule.fixed_point`."""

_PI = 3.141592653589793


@dataclass(frozen=True)
class Schedule:
    """The probability of each tensor's coordinates at each exchange.

    Parameters
    ----------
    config : ExchangeConfig
        ``p``, ``p_per``, ``schedule`` (depth), ``timing``, ``warmup`` and ``stop_after`` (time).
    exchanges : int
        Exchanges in the whole run; the cosine ends there, and ``average_from`` is a part of it.
    steps : int
        Optimizer steps of a member between two exchanges, for ``p_per = "step"``.
    """

    config: ExchangeConfig
    exchanges: int = 1
    steps: int = 1

    def __post_init__(self) -> None:
        if self.config.schedule not in _DEPTH:
            raise ValueError(f"schedule = {self.config.schedule} is no schedule yet: see core.auto.chosen.")

    @classmethod
    def of(cls, config: RunConfig) -> "Schedule":
        """Return the schedule of a run: one exchange per round, or one every few steps."""
        return cls.between(config.exchange, config.training.rounds, config.training.local_steps)

    @classmethod
    def between(cls, config: ExchangeConfig, rounds: int, local_steps: int) -> "Schedule":
        """Return the schedule of a run of so many rounds and optimizer steps per round."""
        plane = plane_of(config)
        exchanges = plane.exchanges(config, rounds, local_steps)
        return cls(config, exchanges, plane.steps_between(config, local_steps))

    def probabilities(self, layout: Layout, exchange: int) -> list[float]:
        """Return the probability per tensor, each from 0 to 1, at an exchange numbered from 1."""
        p = self.config.p * self.over_time(exchange)
        per_tensor = _DEPTH[self.config.schedule](p, layout.sizes.tolist())
        if self.config.p_per == "step":
            return [_hit_rate(probability, self.steps) for probability in per_tensor]
        return per_tensor

    def fixed_point(self, layout: Layout, exchange: int) -> NDArray[np.uint64]:
        """Return the probabilities as integers in units of 2**-32, 0 to 2**32, shape (tensors,)."""
        return np.array([int(p * ONE + 0.5) for p in self.probabilities(layout, exchange)], dtype=np.uint64)

    def options_at(self, exchange: int) -> ExchangeConfig:
        """Return the options as they hold at an exchange: see :func:`options_at`."""
        return options_at(self.config, exchange, self.exchanges)

    def over_time(self, exchange: int) -> float:
        """Return the factor on p at an exchange: 0 to 1."""
        config = self.config
        if config.stop_after and exchange > config.stop_after:
            return 0.0
        factor = min(1.0, exchange / config.warmup) if config.warmup else 1.0
        if config.timing == "cosine":
            last = last_exchange(config, self.exchanges)
            # Exchange 1 has the factor 1, and the one after the last would have 0.
            factor *= 0.5 + 0.5 * _cos_pi(min(1.0, (exchange - 1) / last))
        return factor


def last_exchange(config: ExchangeConfig, exchanges: int) -> int:
    """Return the last exchange that moves anything, in a run of so many."""
    return config.stop_after or exchanges


def options_at(config: ExchangeConfig, exchange: int, exchanges: int) -> ExchangeConfig:
    """Return the options as they hold at an exchange of a run of so many.

    They are the run's. With ``average_from``, exchanges after ``floor(average_from * last)`` average instead:
    in pairs if the shuffle is in pairs, over all if it is a permutation. Whoever looks at ``mix``,
    ``topology``, or the dtype of a delivery looks at these options, at the number of its exchange.
    """
    if config.average_from and exchange > int(config.average_from * last_exchange(config, exchanges)):
        return _averaging(config)
    return config


@lru_cache(maxsize=64)
def _averaging(config: ExchangeConfig) -> ExchangeConfig:
    topology = "all" if config.topology == "permutation" else "pairs"
    return replace(config, mix="average", topology=topology, average_from=0.0)


def decreasing(p: float, sizes: list[int]) -> list[float]:
    """``p * (1 - l / (L - 1))`` for the l-th of L tensors: the paper's layer-wise schedule.

    Fournier et al. 2024, "WASH: Train your Ensemble with Communication-Efficient Weight Shuffling, then
    Average", section 3: the first tensor has p, the last has 0. A single tensor has p.
    """
    last = max(1, len(sizes) - 1)
    return [p * (1.0 - depth / last) for depth in range(len(sizes))]


def increasing(p: float, sizes: list[int]) -> list[float]:
    """``p * l / (L - 1)``: the first tensor has 0, the last p. A single tensor has p."""
    return decreasing(p, sizes)[::-1]


def constant(p: float, sizes: list[int]) -> list[float]:
    """Return p for every tensor."""
    return [p] * len(sizes)


def size_aware(p: float, sizes: list[int]) -> list[float]:
    """``min(1, c / size)``, with c such that ``p * sum(sizes)`` coordinates are expected in all.

    Every tensor gets the same expected number of coordinates, unless it has fewer than that.
    """
    budget = p * sum(sizes)
    ascending = sorted(sizes)
    for position, size in enumerate(ascending):
        share = budget / (len(ascending) - position)
        if share <= size:
            return [min(1.0, share / each) for each in sizes]
        budget -= size
    return [1.0] * len(sizes)


_DEPTH = {
    "decreasing": decreasing,
    "increasing": increasing,
    "constant": constant,
    "size-aware": size_aware,
}


def _hit_rate(p: float, steps: int) -> float:
    """``1 - (1 - p)**steps``: the chance to be selected at least once in so many steps."""
    missed, factor = 1.0, 1.0 - p
    while steps:
        if steps & 1:
            missed *= factor
        factor *= factor
        steps >>= 1
    return 1.0 - missed


def _cos_pi(x: float) -> float:
    """Cosine of pi * x for x in [0, 1], by its Taylor series around the nearer of 0 and 1."""
    sign = 1.0
    if x > 0.5:
        x, sign = 1.0 - x, -1.0
    square = (x * _PI) * (x * _PI)
    term = total = 1.0
    for n in range(1, 12):
        term *= -square / ((2 * n - 1) * (2 * n))
        total += term
    return sign * total
