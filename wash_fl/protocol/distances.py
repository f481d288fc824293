"""How far each of several members is from the middle of all, in units of what is usual among them.

The middle of a value is the median of the members', its spread the median of their distances from it.
:mod:`wash_fl.protocol.outliers` says why, and who is too far.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.dtypes import DTYPES
from wash_fl.protocol.parts import Parts

FLOOR: Final = 1e-2
"""Values of this size are no measure for others: a weight that is zero in all members but one, say."""

Grain = NDArray[np.float64] | float

_COLUMNS: Final = 1 << 15
_FEW_MEMBERS: Final = 32
JUDGES: Final = 3
"""Of fewer members nobody can say which one is wrong."""


class Distances:
    """Adds up how far each member is from the middle, some columns after the other.

    Parameters
    ----------
    members, slots : int
        How many.
    parts : Parts
        Which of the values are of which tensor.
    grain : ndarray of float64, shape (slots, parts + 1), or 0
        How coarse the values are (:func:`grain_of`).
    by_size : bool
        The size of the middle is a measure, too: trained values begin equal, and their spread says little.
    """

    def __init__(
        self, members: int, slots: int, parts: Parts, grain: Grain = 0.0, *, by_size: bool = True
    ) -> None:
        shape = (slots, len(parts.names))
        self._parts = parts
        self._grain = grain
        self._by_size = by_size
        self._distance = np.zeros((members, *shape))
        self._middle, self._spread = np.zeros(shape), np.zeros(shape)
        self._along = np.zeros((members, shape[1]))

    def add(self, values: Sequence[NDArray[np.floating[Any]]], begin: int = 0) -> None:
        """Look at the members' values, each of shape (slots, count), of the columns from ``begin`` on."""
        # Piece by piece: the server is to hold slices, not several copies of them.
        columns = max(1, _COLUMNS * _FEW_MEMBERS // max(_FEW_MEMBERS, len(values)))
        for first in range(0, values[0].shape[1], columns):
            # In float64, where the square of the largest float32 is a number.
            piece = np.array([each[:, first : first + columns] for each in values], dtype=np.float64)
            middle, of_members, of_middle, of_spread = squared_distances(piece)
            self._along += self._parts.sums(piece[:, 0] * middle[0], begin + first)
            self._distance += self._parts.sums(of_members, begin + first)
            self._middle += self._parts.sums(of_middle, begin + first)
            self._spread += self._parts.sums(of_spread, begin + first)

    def ratios(self) -> NDArray[np.float64]:
        """Return the members' ratios, of each slot, part and all together: (members, slots, parts + 1)."""
        sizes = self._parts.sizes
        middle = with_all(self._middle) * self._by_size
        usual = usual_distance(middle, with_all(self._spread), sizes, self._grain)
        found: NDArray[np.float64] = np.sqrt(with_all(self._distance) / sizes) / usual
        return found

    def shares(self) -> NDArray[np.float64]:
        """Return how much of the middle there is in each member's parameters, shape (members, parts + 1).

        1 is usual, 0 is nothing in common, and -1 the middle with its signs turned.
        """
        middle = with_all(self._middle)[0]
        return shares_of(with_all(self._along), middle, self._parts.sizes, self._grain)


def shares_of(
    along: NDArray[np.float64], middle: NDArray[np.float64], sizes: NDArray[np.int64], grain: Grain
) -> NDArray[np.float64]:
    """Return shares of the middle, from sums of products with it and of its squares."""
    coarse = grain[0] if isinstance(grain, np.ndarray) else grain
    shares: NDArray[np.float64] = along / (middle + sizes * (FLOOR**2 + coarse**2))
    return shares


def ratios(offers: Sequence[NDArray[np.float32]], parts: Parts | None = None) -> NDArray[np.float64]:
    """Return how far each member is from the middle of all, in units of what is usual.

    Parameters
    ----------
    offers : sequence of ndarray of float32, each of shape (slots, count)
        At least one; count is at least 1.
    parts : Parts, optional
        Which of the values are of which tensor; by default all are of one.

    Returns
    -------
    ndarray of float64, shape (members, slots, parts + 1)
        In each part, and in all together.
    """
    slots, count = offers[0].shape
    distances = Distances(len(offers), slots, Parts.one(count) if parts is None else parts)
    distances.add(offers)
    return distances.ratios()


def grain_of(offers: Sequence[NDArray[np.float32]], dtype: str, parts: Parts) -> Grain:
    """Return how coarse offers are as they travelled, shape (slots, parts + 1); 0 if no values share a scale.

    Values that share a scale with larger ones are multiples of it. A tensor of small values may be coarse by
    more than its size then, in who happens to have larger ones beside it: no reason to set anybody aside. It
    is the root mean square of the scales, which are the median members' at each value.
    """
    encoding = DTYPES[dtype]
    if not encoding.highest or len(offers) < JUDGES:
        return 0.0
    starts = np.arange(0, offers[0].shape[1], encoding.block)
    largest = np.array([np.maximum.reduceat(np.abs(offer), starts, axis=1) for offer in offers])
    scales = median_of(largest) / encoding.highest
    columns = np.repeat(scales, encoding.block, axis=1)[:, : offers[0].shape[1]]
    grain: NDArray[np.float64] = np.sqrt(with_all(parts.sums(np.square(columns))) / parts.sizes)
    return grain


def with_all(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sums over the parts, and behind them the sum of these."""
    return np.concatenate([sums, sums.sum(axis=-1, keepdims=True)], axis=-1)


def squared_distances(values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], ...]:
    """Return the middle, and the squares of each member's distance from it, of it, and of the spread.

    Of values of shape (members, slots, columns); the second has that shape, the others (slots, columns).
    """
    median = median_of(values)
    apart = np.abs(values - median.astype(values.dtype, copy=False))
    spread = median_of(apart)
    return median, np.square(apart), np.square(median), np.square(spread)


def median_of(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the median over the members."""
    # Sorted side by side, which the processor does many at a time: faster than to look for the middle.
    ordered = np.array(np.moveaxis(values, 0, -1), order="C")
    ordered.sort(axis=-1)
    middle = ordered[..., (len(values) - 1) // 2 : len(values) // 2 + 1]
    return np.asarray(middle.mean(axis=-1, dtype=np.float64))


def usual_distance(
    middle: NDArray[np.float64], spread: NDArray[np.float64], sizes: NDArray[np.int64], grain: Grain = 0.0
) -> NDArray[np.float64]:
    """Return how far from the middle is usual, from sums of squares, of shape (slots, parts + 1)."""
    size = np.sqrt(middle / sizes)
    usual: NDArray[np.float64] = 2.0 * np.sqrt(spread / sizes) + size + grain + FLOOR
    usual[1:] += size[0]
    return usual
