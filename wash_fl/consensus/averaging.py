"""The mean of the members, one at a time: memory for two vectors, whatever the number of members."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import LayoutError


class Accumulator:
    """Sums vectors so that their order does not matter to a single bit.

    Each sum is kept as an unevaluated pair of float64 (Knuth's TwoSum: the rounding error of an addition is
    itself a float64), which holds it exactly as long as the values at a place span fewer than 2**80; so
    members may arrive in any order, and a shuffle of their values does not change the mean's hash.

    Parameters
    ----------
    size : int
        Length of the vectors.

    Examples
    --------
    >>> accumulator = Accumulator(1)
    >>> for value in (1e8, 1.0, -1e8):
    ...     accumulator.add(np.array([value], dtype=np.float32))
    >>> accumulator.mean()
    array([0.33333333])
    """

    def __init__(self, size: int) -> None:
        self._sum = np.zeros(size)
        self._error = np.zeros(size)
        self.count = 0

    def add(self, vector: NDArray[np.floating[Any]]) -> None:
        """Add a member's vector, shape (size,)."""
        if vector.shape != self._sum.shape:
            raise ValueError(f"a vector of shape {vector.shape}; it must be {self._sum.shape}.")
        total, error = _two_sum(self._sum, vector.astype(np.float64))
        self._sum = total
        self._error += error
        self.count += 1

    def mean(self) -> NDArray[np.float64]:
        """Return the mean of the vectors added so far, shape (size,), float64: a function of their multiset.

        Raises
        ------
        ValueError
            If there is none.
        """
        if self.count == 0:
            raise ValueError("the mean of no member: add at least one.")
        # Adding the error once more makes the leading part the sum, correctly rounded: a function of the
        # exact sum alone, not of the path to it.
        total, _ = _two_sum(self._sum, self._error)
        return total / self.count


class ModelAverage:
    """The mean of the members' models, named arrays in, named arrays out.

    Floating-point arrays are averaged. Others (BatchNorm's count of batches) are the member's with the
    lowest index.

    Examples
    --------
    >>> average = ModelAverage()
    >>> average.add(0, {"weight": np.zeros(2, dtype=np.float32)})
    >>> average.add(1, {"weight": np.ones(2, dtype=np.float32)})
    >>> average.mean()["weight"]
    array([0.5, 0.5], dtype=float32)
    """

    def __init__(self) -> None:
        self.members: list[int] = []
        self._sums: dict[str, Accumulator] = {}
        self._kept: dict[str, NDArray[Any]] = {}

    def add(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add a member's state dict.

        Raises
        ------
        LayoutError
            If its names, shapes or dtypes differ from the first member's, or a value is not finite.
        """
        if not self._kept:
            self._kept = {name: np.array(array) for name, array in arrays.items()}
            self._sums = {
                name: Accumulator(array.size)
                for name, array in arrays.items()
                if np.issubdtype(array.dtype, np.floating)
            }
        self._check(member, arrays)
        for name, accumulator in self._sums.items():
            accumulator.add(arrays[name].reshape(-1))
        if member < min(self.members, default=member + 1):
            self._kept |= {name: np.array(arrays[name]) for name in self._kept if name not in self._sums}
        self.members.append(member)

    def mean(self) -> dict[str, NDArray[Any]]:
        """Return the averaged state dict, in the order and dtypes of the members'."""
        return {
            name: self._sums[name].mean().reshape(kept.shape).astype(kept.dtype)
            if name in self._sums
            else kept
            for name, kept in self._kept.items()
        }

    def _check(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        if list(arrays) != list(self._kept):
            differing = sorted(set(arrays) ^ set(self._kept)) or ["their order"]
            raise LayoutError(f"member {member}'s model differs from the others' in {', '.join(differing)}.")
        for name, array in arrays.items():
            kept = self._kept[name]
            if array.shape != kept.shape or array.dtype != kept.dtype:
                raise LayoutError(
                    f"member {member}'s {name} is {array.dtype}{list(array.shape)}, "
                    f"the others' is {kept.dtype}{list(kept.shape)}."
                )
            if name in self._sums and not np.isfinite(array).all():
                raise LayoutError(f"member {member}'s {name} holds values that are infinite or not numbers.")


def _two_sum(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rounded sum and its rounding error: Knuth, The Art of Computer Programming 2, 4.2.2."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)
