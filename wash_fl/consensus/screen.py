"""Whose last word lies far from the others': final models, and BatchNorm statistics of the averaged model.

The rule is that of the exchanges (:mod:`wash_fl.protocol.outliers`), over all values and tensor by tensor.
What is looked at is all that the averaged model takes a mean of, and nothing that is one member's.
"""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.rules import MEANS, Rule, StateRules
from wash_fl.protocol.distances import Distances
from wash_fl.protocol.outliers import worst_first
from wash_fl.protocol.parts import Parts, signs_of

DATA: Final = 5.0
"""How many times wider the limit is for statistics of data. Honest members, each with a class or two, reach
2.6 times the limit of parameters with the variances of their own activations."""


ESTIMATES: Final = 1.5
"""The same for estimates of one model, by their spread alone: honest members reach 2.0 of the 4.5 then, and
zeros in place of means 6.8 and more."""


class Models(Protocol):
    """The members' whole models.

    Attributes
    ----------
    members : list of int
        Whose there are.
    """

    members: list[int]

    def model(self, member: int) -> dict[str, NDArray[Any]]:
        """Return a member's state dict."""

    def entry(self, member: int, name: str) -> NDArray[Any]:
        """Return one entry of it."""


def strange_models(
    models: Models, rules: StateRules, constants: Container[str], factor: float
) -> dict[int, str]:
    """Return the members whose models are not to be averaged, the worst first, each with the reason.

    Parameters
    ----------
    models : Models
        Finite, and of one kind; in memory is one entry of all of them at a time.
    rules : StateRules
        Of the model.
    constants : container of str
        The entries that were not finite from the beginning: they have no mean.
    factor : float
        How many times farther from the middle than usual is too far; 0 leaves nobody out.

    Returns
    -------
    dict of int to str
        Empty with fewer than three models.
    """
    names = [name for name, rule in rules.rules.items() if rule in MEANS and name not in constants]
    parameters = [name for name in names if rules.rules[name] is Rule.TRAINED]
    others = [name for name in names if rules.rules[name] is not Rule.TRAINED]
    left_out = strange(models, parameters, factor)
    return left_out | strange(models, others, factor, but=left_out, of_data=True)


def strange(
    models: Models,
    names: Sequence[str],
    factor: float,
    *,
    but: Container[int] = (),
    of_data: bool = False,
    estimates: bool = False,
) -> dict[int, str]:
    """Return the members some of whose entries of these names lie far from the others', with the reason.

    Parameters
    ----------
    models : Models
        Finite, and of one kind.
    names : sequence of str
        Of the entries.
    factor : float
        As for :func:`strange_models`.
    but : container of int
        Who is not looked at.
    of_data : bool
        The entries are statistics of data that may be one member's alone: their limit is wider.
    estimates : bool
        They are such statistics of one model: those that agree say how far apart they may be, whatever their
        size. Zeros would pass for a mean otherwise.
    """
    members = sorted(member for member in models.members if member not in but)
    if factor <= 0 or not members:
        return {}
    # Shapes alone: the entries themselves would be a whole model in memory.
    shapes = {name: models.entry(members[0], name).shape for name in names}
    sizes = {name: size for name, shape in shapes.items() if (size := math.prod(shape))}
    if not sizes:
        return {}
    signed = signs_of([shapes[name] for name in sizes])
    parts = Parts(list(sizes), np.array([0, *accumulate(sizes.values())]), signed)
    if of_data or estimates:
        parts = replace(parts, signed=np.zeros_like(signed), width=DATA if of_data else ESTIMATES)

    def look(rest: Sequence[int]) -> Distances:
        distances = Distances(len(rest), 1, parts, by_size=not estimates)
        for name, begin in zip(sizes, parts.bounds.tolist(), strict=False):
            distances.add([models.entry(member, name).reshape(1, -1) for member in rest], begin)
        return distances

    # What overflows is infinitely far away.
    with np.errstate(over="ignore", invalid="ignore"):
        return worst_first(members, look, factor, parts)


class InMemory:
    """Models that are in memory anyway.

    Parameters
    ----------
    models : mapping of int to dict of str to ndarray
        State dicts, by member.
    """

    def __init__(self, models: Mapping[int, dict[str, NDArray[Any]]]) -> None:
        self.members = list(models)
        self._models = models

    def model(self, member: int) -> dict[str, NDArray[Any]]:
        """Return a member's state dict."""
        return self._models[member]

    def entry(self, member: int, name: str) -> NDArray[Any]:
        """Return one entry of it."""
        return self._models[member][name]
