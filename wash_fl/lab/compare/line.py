"""Loss along straight lines between models: whether they are in one basin."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.consensus.finish import Arrays
from wash_fl.consensus.spectral import recomputed
from wash_fl.core.rules import StateRules

PLACES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Line:
    """What lies between two models.

    Attributes
    ----------
    places : tuple of float
        Where, from 0 (the first model) to 1 (the second).
    losses, accuracies : list of float
        Test loss and accuracy there.
    """

    places: tuple[float, ...]
    losses: list[float]
    accuracies: list[float]

    @property
    def barrier(self) -> float:
        """The most by which the loss lies above the line between its ends; at most 0: there is none.

        Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis", section 2.
        """
        ends = self.losses[0], self.losses[-1]
        return max(
            loss - ((1.0 - place) * ends[0] + place * ends[1])
            for place, loss in zip(self.places[1:-1], self.losses[1:-1], strict=True)
        )


def between(
    first: Arrays,
    second: Arrays,
    rules: StateRules,
    finish: Callable[[Arrays], Arrays],
    evaluate: Callable[[Arrays], tuple[float, float]],
) -> Line:
    """Look at models on the line between two.

    Parameters
    ----------
    first, second : dict of str to ndarray
        State dicts.
    rules : StateRules
        What of them has a mean.
    finish : callable
        Re-estimates BatchNorm statistics, which fit no model between two.
    evaluate : callable
        Returns loss and accuracy of weights.
    """
    found = [evaluate(finish(_mixed(first, second, rules, place))) for place in PLACES]
    return Line(PLACES, [loss for loss, _ in found], [accuracy for _, accuracy in found])


def _mixed(first: Arrays, second: Arrays, rules: StateRules, place: float) -> dict[str, NDArray[Any]]:
    if place in (0.0, 1.0):
        return dict(second if place else first)
    mixed = {
        name: ((1.0 - place) * each.astype(np.float64) + place * second[name]).astype(each.dtype)
        if rules.has_mean(name)
        else each
        for name, each in first.items()
    }
    return rules.spread(recomputed(mixed, rules.spectral))
