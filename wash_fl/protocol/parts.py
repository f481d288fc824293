"""Which of several members' values are of which tensor, where they are compared tensor by tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.selection import Selection

FEW: Final = 100.0
"""How much wider the limit is at a single coordinate; the n-th root of it at n."""


def signs_of(shapes: Sequence[tuple[int, ...]]) -> NDArray[np.bool_]:
    """Return what :attr:`Parts.signed` is for parameters of these shapes."""
    return np.array([*(len(shape) > 1 for shape in shapes), True])


@dataclass(frozen=True, eq=False)
class Parts:
    """Where the values of each tensor are among those that are compared.

    Attributes
    ----------
    names : sequence of str
        Of the tensors.
    bounds : ndarray of int64, shape (len(names) + 1,)
        Where the columns of each begin, rising, and how many there are.
    signed : ndarray of bool, shape (len(names) + 1,)
        In which parts, and whether in all together, members have their signs in common. They have in matrices
        and kernels, which begin as the same random values; a bias begins at zero and goes where its member's
        data are, and so do statistics of data.
    width : float
        How many times wider the limits are than elsewhere.
    """

    names: Sequence[str]
    bounds: NDArray[np.int64]
    signed: NDArray[np.bool_]
    width: float = 1.0

    @classmethod
    def of(cls, selection: Selection) -> "Parts":
        """Return those of an exchange."""
        tensors = [selection.layout.tensors[each.tensor] for each in selection.parts]
        bounds = np.array([*(each.begin for each in selection.parts), selection.count])
        return cls([each.name for each in tensors], bounds, signs_of([each.shape for each in tensors]))

    @classmethod
    def one(cls, count: int) -> "Parts":
        """Return one part that is all there is."""
        return cls([""], np.array([0, count]), np.ones(2, dtype=bool))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Columns of each part, and then of all together."""
        return np.append(np.diff(self.bounds), self.bounds[-1])

    @property
    def slack(self) -> NDArray[np.float64]:
        """By how much the limit is wider, of each part and of all together: few columns say little."""
        slack: NDArray[np.float64] = self.width * FEW ** (1.0 / self.sizes)
        return slack

    def sums(self, values: NDArray[np.floating[Any]], begin: int = 0) -> NDArray[np.float64]:
        """Return sums over the columns of each part, shape (..., parts), of columns from ``begin`` on."""
        bounds, end = self.bounds, begin + values.shape[-1]
        sums = np.zeros((*values.shape[:-1], len(self.names)))
        first = int(np.searchsorted(bounds, begin, "right")) - 1
        last = int(np.searchsorted(bounds, end, "left"))
        starts = np.maximum(bounds[first:last] - begin, 0)
        sums[..., first:last] = np.add.reduceat(values, starts, axis=-1)
        return sums
