"""Means of the members that a few of them cannot move far, whatever they hand in.

Yin et al. 2018, "Byzantine-Robust Distributed Learning": the median, and the mean without the largest and the
smallest values, at each coordinate.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FINAL_AVERAGES: Final = ("mean", "trimmed", "median")
"""How the final models become one."""

NONE: Final = "none"

TRIMMED: Final = 4
"""Of so many members one is left out at either end, but at least one."""

_COLUMNS: Final = 1 << 18


def robust_mean(values: Sequence[NDArray[np.floating[Any]]], how: str) -> NDArray[np.float64]:
    """Return the median or the trimmed mean of the members' values, at each place.

    Parameters
    ----------
    values : sequence of ndarray, all of one shape
        One of each member.
    how : str
        ``median`` or ``trimmed``. With fewer than three members both are the mean, as ``none`` always is.

    Returns
    -------
    ndarray of float64
        Of the values' shape; it does not depend on their order.
    """
    count = len(values)
    middle = _middle_part(count, how)
    flat = [np.reshape(each, -1) for each in values]
    result = np.empty(flat[0].size)
    for begin in range(0, result.size, _COLUMNS):
        piece = np.array([each[begin : begin + _COLUMNS] for each in flat], dtype=np.float64)
        piece.sort(axis=0)
        result[begin : begin + _COLUMNS] = piece[middle].mean(axis=0)
    return result.reshape(np.shape(values[0]))


def _middle_part(count: int, how: str) -> slice:
    """Return which of the values are in the mean, in order of size."""
    if count < 3 or how == NONE:
        return slice(0, count)
    if how == "median":
        return slice((count - 1) // 2, count // 2 + 1)
    away = max(1, count // TRIMMED)
    return slice(away, count - away)
