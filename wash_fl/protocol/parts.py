"""Which of several members' values are of which tensor, where they are compared tensor by tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.selection import Selection

FEW: Final = 100.0
"""How much wider the limit is at a single coordinate; the n-th root of it at n."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Where the values of each tensor are among those that are compared.

    Attributes
    ----------
    names : sequence of str
        Of the tensors.
    bounds : ndarray of int64, shape (len(names) + 1,)
        Where the columns of each begin, rising, and how many there are.
    signed : bool
        Whether members have their signs in common, as trained values have, and statistics of data may not.
    """

    names: Sequence[str]
    bounds: NDArray[np.int64]
    signed: bool = True

    @classmethod
    def of(cls, selection: Selection) -> "Parts":
        """Return those of an exchange."""
        tensors = selection.layout.tensors
        names = [tensors[each.tensor].name for each in selection.parts]
        return cls(names, np.array([*(each.begin for each in selection.parts), selection.count]))

    @classmethod
    def one(cls, count: int) -> "Parts":
        """Return one part that is all there is."""
        return cls([""], np.array([0, count]))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Columns of each part, and then of all together."""
        return np.append(np.diff(self.bounds), self.bounds[-1])

    @property
    def slack(self) -> NDArray[np.float64]:
        """By how much the limit is wider, of each part and of all together: few columns say little."""
        slack: NDArray[np.float64] = FEW ** (1.0 / self.sizes)
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
