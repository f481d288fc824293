"""The mean of the members, one at a time: memory for two vectors, whatever the number of members."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wash_fl.consensus.spectral import recomputed
from wash_fl.consensus.treatment import AVERAGED, CONSTANT, FROM_MEMBER, RECOMPUTED, Treatment
from wash_fl.core.identity import array_sha256
from wash_fl.core.rules import MEANS, Rule, SpectralNorm, StateRules, not_finite, same_bits
from wash_fl.errors import LayoutError

Robust = Callable[[str], NDArray[np.float64]]


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

    What an entry's rule says (:class:`~wash_fl.core.rules.Rule`) is done with it. What is not averaged is
    that of the member with the lowest index; what is equal in all members, bit for bit, stays as it is.

    Parameters
    ----------
    rules : StateRules
        Of the model.
    constants : dict of str to str
        The entries that were not finite from the beginning, as a mask of minus infinity is, and their hashes
        (:func:`constants_of`). No other may be so.

    Examples
    --------
    >>> average = ModelAverage(StateRules.of({"weight": Rule.TRAINED, "batches": Rule.COUNTER}))
    >>> average.add(0, {"weight": np.zeros(2, dtype=np.float32), "batches": np.array(3)})
    >>> average.add(1, {"weight": np.ones(2, dtype=np.float32), "batches": np.array(5)})
    >>> average.mean()
    {'weight': array([0.5, 0.5], dtype=float32), 'batches': array(3)}
    >>> average.treatment()
    {'from member 0': ['batches']}
    """

    def __init__(self, rules: StateRules, constants: Mapping[str, str] | None = None) -> None:
        self.members: list[int] = []
        self._rules = rules
        self._constants = constants or {}
        self._kinds: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self._sums: dict[str, Accumulator] = {}
        self._untrained: dict[str, NDArray[Any]] = {}
        self._differing: set[str] = set()

    def add(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add a member's state dict, of which the first name of each entry counts.

        Raises
        ------
        LayoutError
            If its names, shapes or dtypes differ from the first member's, or a value is not finite.
        """
        self._check(member, arrays)
        if not self.members:
            self._begin(arrays)
        for name, accumulator in self._sums.items():
            accumulator.add(arrays[name].reshape(-1))
        self._differing |= {
            name for name, array in self._untrained.items() if not same_bits(array, arrays[name])
        }
        if member < min(self.members, default=member + 1):
            self._untrained |= {name: np.array(arrays[name]) for name in self._untrained}
        self.members.append(member)

    def mean(self, robust: Robust | None = None) -> dict[str, NDArray[Any]]:
        """Return the averaged state dict, under all names, in the order and dtypes of the members'.

        ``robust``, if it is given, returns by name what stands for the mean of the members' values.
        """
        averaged = {name: self._mean_of(name, robust) for name in self._kinds}
        return self._rules.spread(recomputed(averaged, self._recomputed()))

    def treatment(self) -> Treatment:
        """Return what was done with each buffer, and each frozen parameter that differed, by first name."""
        anew = {name for norm in self._recomputed() for name in (norm.u, norm.v)}
        treatment: Treatment = {}
        for name in self._untrained:
            if name in anew:
                what = RECOMPUTED
            elif name not in self._differing:
                if self._rules.rules[name] is Rule.FROZEN:
                    continue
                what = CONSTANT
            else:
                what = AVERAGED if name in self._sums else f"{FROM_MEMBER} {min(self.members)}"
            treatment.setdefault(what, []).append(name)
        return treatment

    def _begin(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._kinds = {name: (arrays[name].shape, arrays[name].dtype) for name in self._rules.rules}
        for name, rule in self._rules.rules.items():
            if rule is not Rule.TRAINED:
                self._untrained[name] = np.array(arrays[name])
            # What is not finite is constant, and has no mean.
            if rule in MEANS and name not in self._constants:
                self._sums[name] = Accumulator(arrays[name].size)

    def _mean_of(self, name: str, robust: Robust | None) -> NDArray[Any]:
        if name not in self._sums or (name in self._untrained and name not in self._differing):
            return self._untrained[name]
        shape, dtype = self._kinds[name]
        mean = self._sums[name].mean() if robust is None else robust(name)
        return mean.reshape(shape).astype(dtype)

    def _recomputed(self) -> Iterator[SpectralNorm]:
        """Yield the spectral norms that no member has for the averaged weight."""
        for norm in self._rules.spectral:
            entries = (norm.weight, norm.u, norm.v)
            if not all(name in self._untrained and name not in self._differing for name in entries):
                yield norm

    def _check(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        if arrays.keys() != self._rules.first.keys():
            differing = sorted(arrays.keys() ^ self._rules.first.keys())
            raise LayoutError(f"member {member}'s model differs from the others' in {', '.join(differing)}.")
        for name in self._rules.rules:
            array = arrays[name]
            shape, dtype = self._kinds.get(name, (array.shape, array.dtype))
            if array.shape != shape or array.dtype != dtype:
                raise LayoutError(
                    f"member {member}'s {name} is {array.dtype}{list(array.shape)}, "
                    f"the others' is {dtype}{list(shape)}."
                )
            if not is_sound(array, self._constants.get(name)):
                raise LayoutError(f"member {member}'s {name} holds values that are infinite or not numbers.")


def constants_of(arrays: Mapping[str, NDArray[Any]], rules: StateRules) -> dict[str, str]:
    """Return the hashes of those initial arrays that are not finite and may be so, by first name.

    A mask of minus infinity may; what is trained, or follows the data, may not.
    """
    return {
        name: array_sha256(arrays[name])
        for name, rule in rules.rules.items()
        if rule not in (Rule.TRAINED, Rule.BATCHNORM) and not_finite(arrays[name])
    }


def is_sound(array: NDArray[Any], constant: str | None) -> bool:
    """Whether all values are finite, or those that the entry had from the beginning.

    Parameters
    ----------
    array : ndarray
        A member's.
    constant : str or None
        The hash of the initial array, if that was not finite.
    """
    return not not_finite(array) or array_sha256(array) == constant


def _two_sum(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rounded sum and its rounding error: Knuth, The Art of Computer Programming 2, 4.2.2."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)
