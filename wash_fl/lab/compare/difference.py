"""Variants beside each other, seed by seed: what both were given alike is not in the difference."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wash_fl.lab.compare.comparison import Folder, Variant

Value = Callable[[dict[str, Any]], float]
"""A value from a row's figures."""


@dataclass(frozen=True)
class Difference:
    """Differences of two variants, seed by seed.

    Attributes
    ----------
    values : tuple of float
        One per seed that both have; at least one.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def error(self) -> float:
        """The standard error of their mean; infinite with one seed."""
        seeds = len(self.values)
        return statistics.stdev(self.values) / math.sqrt(seeds) if seeds > 1 else math.inf

    def __str__(self) -> str:
        return self._text(1, 4)

    def points(self) -> str:
        """Return a difference in accuracy as points, with its standard error, such as ``+0.38 ± 0.12``."""
        return self._text(100, 2)

    def _text(self, scale: float, digits: int) -> str:
        error = f" ± {scale * self.error:.{digits}f}" if math.isfinite(self.error) else " (one seed)"
        return f"{scale * self.mean:+.{digits}f}{error}"


def difference(
    folder: Folder, one: Variant, other: Variant, mine: Value, theirs: Value | None = None
) -> Difference | None:
    """Return by how much one variant's value is above another's, over the seeds that both have.

    Parameters
    ----------
    folder : Folder
        The comparison.
    one, other : Variant
        Which variants; they may be the same.
    mine, theirs : callable
        A value from a row's figures, of the one and of the other; by default the same of both.
    """
    found = tuple(
        mine(a) - (theirs or mine)(b)
        for seed in folder.comparison.seeds
        if (a := folder.figures(one, seed)) is not None and (b := folder.figures(other, seed)) is not None
    )
    return Difference(found) if found else None


def itself(folder: Folder, variant: Variant, value: Value) -> Difference | None:
    """Return a variant's own value, as a difference from 0."""
    return difference(folder, variant, variant, value, lambda figures: 0.0)


def product(figures: dict[str, Any]) -> float:
    """Return the accuracy of the model that a method is judged by."""
    return float(figures["accuracy"]["product"])


def bytes_up(figures: dict[str, Any]) -> float:
    """Return the bytes of values that a member uploads while it trains."""
    return float(figures["bytes"]["up_values"])


def plain(folder: Folder, method: str) -> Variant | None:
    """Return a method as it is, with nothing changed but for a budget, or None if it is not compared."""
    own = [each for each in folder.comparison.variants if each.method == method and not each.dropout]
    if folder.comparison.budget:
        return own[0] if len(own) == 1 else None
    return next((each for each in own if not each.changes), None)
