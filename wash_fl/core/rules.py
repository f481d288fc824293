"""What becomes of each entry of the members' state dicts in the averaged model, by name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import LayoutError


class Rule(StrEnum):
    """How the averaged model comes to an entry. One that is equal in all members stays, whatever its rule."""

    TRAINED = "trained"
    """A parameter that is exchanged: the members' mean."""
    BATCHNORM = "batchnorm"
    """A statistic of BatchNorm: the members' mean, until it is estimated anew."""
    AVERAGED = "averaged"
    """A buffer whose mean means something, by what PyTorch says of it or the user: the members' mean."""
    FROZEN = "frozen"
    """A parameter that no gradient changes, so that all members have the same; or else that of one member."""
    MEMBER = "member"
    """Whatever else is a floating-point number: that of one member."""
    COUNTER = "counter"
    """Integers, booleans and complex numbers, which nothing averages: those of one member."""
    SPECTRAL = "spectral"
    """A vector of a spectral norm: from one member's, recomputed for the averaged weight."""


MEANS = (Rule.TRAINED, Rule.BATCHNORM, Rule.AVERAGED)
"""The rules by which the members' mean is taken."""

MARKABLE = (Rule.FROZEN, Rule.MEMBER)
"""The rules of what is averaged if the user marks it."""


@dataclass(frozen=True)
class SpectralNorm:
    """A weight that is divided by its spectral norm, and the singular vectors that this is computed with.

    Attributes
    ----------
    weight, u, v : str
        Names of the entries.
    dim : int
        The dimension of the weight that is the matrix's rows.
    eps : float
        What a vector's length is taken for at least.
    """

    weight: str
    u: str
    v: str
    dim: int
    eps: float


@dataclass(frozen=True)
class StateRules:
    """The rules for a model's whole state dict; all members and the server have the same.

    An entry may have several names, as a tied weight or a module that is registered twice has. The first
    of them, in the order of the state dict, is the one it goes by. What is written has every name, with
    equal values; who reads takes the first name's.

    Attributes
    ----------
    rules : dict of str to Rule
        By first name, in the order of the state dict.
    first : dict of str to str
        The first name of each name, in the order of the state dict.
    spectral : tuple of SpectralNorm
        By first names.
    """

    rules: Mapping[str, Rule]
    first: Mapping[str, str]
    spectral: tuple[SpectralNorm, ...] = ()

    @classmethod
    def of(cls, rules: Mapping[str, Rule]) -> Self:
        """Return the rules of a model in which every entry has one name."""
        return cls(rules, {name: name for name in rules})

    @property
    def batchnorm(self) -> bool:
        """Whether there are statistics that can be estimated anew."""
        return Rule.BATCHNORM in self.rules.values()

    def has_mean(self, name: str) -> bool:
        """Whether the members' mean of an entry, by any of its names, means something."""
        return self.rules[self.first[name]] in MEANS

    def spread(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a whole state dict, in which every name has the array of its first name."""
        return {name: arrays[first] for name, first in self.first.items()}

    def conflict(self, arrays: Mapping[str, NDArray[Any]]) -> str:
        """Return the first name whose array is not that of its first name, bit for bit; empty if none."""
        differing = (
            name
            for name, first in self.first.items()
            if name != first and not same_bits(arrays[name], arrays[first])
        )
        return next(differing, "")

    def marked(self, patterns: Iterable[str]) -> Self:
        """Return the rules with some entries marked by the user as ones to average.

        Only what would be one member's is changed: counters below ``"ema.*"`` stay counters.

        Parameters
        ----------
        patterns : iterable of str
            Names, or patterns of them such as ``"ema.*"``.

        Raises
        ------
        LayoutError
            If a pattern is of no entry that could be averaged.
        """
        rules = dict(self.rules)
        for pattern in patterns:
            matched = {first for name, first in self.first.items() if fnmatchcase(name, pattern)}
            if not any(self.rules[name] in MEANS + MARKABLE for name in matched):
                raise LayoutError(
                    f"{pattern!r} is to be averaged, and no floating-point entry of the model's state dict "
                    f"has such a name: {self._could_be_marked()}."
                )
            rules |= {name: Rule.AVERAGED for name in matched if rules[name] in MARKABLE}
        return replace(self, rules=rules)

    def _could_be_marked(self) -> str:
        names = [name for name, rule in self.rules.items() if rule in MARKABLE]
        if not names:
            return "there is none that would not be averaged anyway"
        return (
            f"use one of {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}, or a pattern like 'ema.*'"
        )


def other_names(first: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return all other names of some entries, each with the name among ``names`` that it stands for.

    Parameters
    ----------
    first : dict of str to str
        The first name of each name.
    names : iterable of str
        Any of the names of some entries.
    """
    given = {first[name]: name for name in names if name in first}
    return {
        name: given[canonical]
        for name, canonical in first.items()
        if canonical in given and name != given[canonical]
    }


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays are equal bit for bit: -0.0 is not 0.0, and a NaN equals itself."""
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and np.array_equal(_bits(one), _bits(other))


def not_finite(array: NDArray[Any]) -> bool:
    """Whether an array holds a value that is infinite or not a number."""
    return array.dtype.kind in "fc" and not bool(np.isfinite(array).all())


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(array, order="C").reshape(-1).view(f"u{array.dtype.itemsize}")
