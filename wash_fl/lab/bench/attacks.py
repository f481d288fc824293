"""What a bad device may say in place of the truth: of what it holds, of its final model, of BatchNorm."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.consensus.batchnorm import BatchNormStatistics
from wash_fl.protocol.journal_rows import Values

HONEST: Final = "none"
"""No attack."""

_ENDLESS: Final = 2**60


@dataclass(frozen=True, eq=False)
class Where:
    """What a bad member holds at the coordinates of an exchange.

    Attributes
    ----------
    values : ndarray of float32, shape (slots, count)
        It.
    in_last : ndarray of bool, shape (count,)
        Which of it is of the last layer.
    exchange, of : int
        The number of the exchange, and of the last one.
    """

    values: Values
    in_last: NDArray[np.bool_]
    exchange: int
    of: int


@dataclass(frozen=True, eq=False)
class Attack:
    """What a bad member says in place of the truth.

    Attributes
    ----------
    offer : callable, optional
        Returns what it offers.
    model : callable, optional
        Returns what it hands in for an entry of its final model, from the name, the entry, and whether it is
        of the last layer.
    statistics : callable, optional
        Returns BatchNorm statistics, from those it estimated.
    """

    offer: Callable[[Where], Values] | None = None
    model: Callable[[str, NDArray[Any], bool], NDArray[Any]] | None = None
    statistics: Callable[[BatchNormStatistics], BatchNormStatistics] | None = None


def _scaled(factor: float) -> Attack:
    return Attack(offer=lambda where: where.values * np.float32(factor))


def _noise(values: NDArray[Any], times: float, seed: int) -> NDArray[Any]:
    sample = np.random.Generator(np.random.Philox(seed)).normal(0.0, 1.0, values.shape)
    return np.asarray(times * float(np.std(values)) * sample, dtype=values.dtype)


ATTACKS: Final[dict[str, Attack]] = {
    HONEST: Attack(),
    "offers times 8": _scaled(8.0),
    "offers times -8": _scaled(-8.0),
    "offers times -3": _scaled(-3.0),
    "signs turned": _scaled(-1.0),
    "shifted by ten times their size": Attack(
        offer=lambda where: where.values + np.float32(10 * np.sqrt(np.square(where.values).mean()))
    ),
    "noise of ten times their size": Attack(offer=lambda where: _noise(where.values, 10.0, where.exchange)),
    "last layer times -20": Attack(
        offer=lambda where: where.values * np.where(where.in_last, np.float32(-20), np.float32(1))
    ),
    "times -8 in the last exchange": Attack(
        offer=lambda where: where.values * np.float32(-8 if where.exchange == where.of else 1)
    ),
    "a slow drift": Attack(offer=lambda where: where.values * np.float32(1 - 2 * where.exchange / where.of)),
    "final model with noise": Attack(model=lambda name, array, last: array + _noise(array, 10.0, len(name))),
    "final last layer times -20": Attack(model=lambda name, array, last: array * -20 if last else array),
    "final model times -8": Attack(model=lambda name, array, last: array * -8),
    "statistics": Attack(
        statistics=lambda each: replace(
            each,
            mean={name: np.full_like(mean, 1e6) for name, mean in each.mean.items()},
            examples=_ENDLESS,
        )
    ),
    "examples without end": Attack(
        statistics=lambda each: replace(
            each, mean={name: 0 * mean for name, mean in each.mean.items()}, examples=_ENDLESS
        )
    ),
}
"""By name."""
