"""Which offers lie so far from the others' that their members are broken or hostile.

The escrow holds several members' values at the same coordinates, so it can compare them. The rule measures
each member against the middle of all, with estimates that stay right as long as a majority is honest:

- the middle of a coordinate is the median of the members' values, its spread the median of their distances
  from it: neither is moved beyond the honest values by a minority;
- over all coordinates of a slot, the member's *ratio* is its root mean square distance from the middle, over
  twice that of the spread plus that of the middle itself plus a floor. The middle is in it because members
  are nearly equal at first, and then the spread alone would make an outlier of whoever trains a little
  faster; the floor because what is nearly zero for all is no measure;
- a ratio above ``factor * 100 ** (1 / count)`` is an outlier: few coordinates say little;
- the worst goes first, and the rest is looked at again, until nobody stands out or two are left.

Optimizer state (WASH+Opt) is naturally uneven: where one member's data are of one class its gradients vanish
while another's do not. It is measured against the size of the parameters, too, so that only what is far
beyond any gradient stands out.

What it does not see: values within the factor, such as a slice of zeros or another model's weights; a slow
drift; half of the members or more acting together; one of two members. It says who stands out, not why.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]

FLOOR: Final = 1e-2
"""Values of this size are no measure for others: a weight that is zero in all members but one, say."""

FEW: Final = 100.0
"""How much wider the limit is at a single coordinate; the n-th root of it at n."""

_JUDGES: Final = 3
_COLUMNS: Final = 1 << 15


def find_outliers(offers: Mapping[int, Values], factor: float) -> dict[int, str]:
    """Return the members to set aside, each with the reason, on one line.

    Parameters
    ----------
    offers : mapping of int to ndarray of float32, each of shape (slots, count)
        By member, at the coordinates of one exchange; finite, as packets are.
    factor : float
        How many times farther from the middle than usual is too far; 0 sets nobody aside.

    Returns
    -------
    dict of int to str
        Empty with fewer than three offers: of two nobody can say which one is wrong.
    """
    rest = sorted(offers)
    aside: dict[int, str] = {}
    count = offers[rest[0]].shape[1] if rest else 0
    if factor <= 0 or count == 0:
        return aside
    limit = factor * FEW ** (1.0 / count)
    while len(rest) >= _JUDGES:
        worst_slot = ratios([offers[member] for member in rest]).max(axis=1)
        worst = int(worst_slot.argmax())
        # Written so that a ratio that is no number sets nobody aside.
        if not worst_slot[worst] > limit:
            break
        aside[rest.pop(worst)] = (
            f"its values lie {worst_slot[worst]:.3g} times as far from the members' middle as is usual at "
            f"these {count} coordinates; outlier-factor = {factor:g} allows {limit:.3g}"
        )
    return aside


def ratios(offers: Sequence[Values]) -> NDArray[np.float64]:
    """Return how far each member is from the middle of all, in units of what is usual.

    Parameters
    ----------
    offers : sequence of ndarray of float32, each of shape (slots, count)
        At least one; count is at least 1.

    Returns
    -------
    ndarray of float64, shape (members, slots)
    """
    slots, count = offers[0].shape
    distance = np.zeros((len(offers), slots))
    middle, spread = np.zeros(slots), np.zeros(slots)
    # Piece by piece: the server is to hold slices, not several copies of them.
    for begin in range(0, count, _COLUMNS):
        # In float64, where the square of the largest float32 is a number.
        values = np.array([offer[:, begin : begin + _COLUMNS] for offer in offers], dtype=np.float64)
        median = np.median(values, axis=0)
        apart = np.abs(values - median)
        distance += np.square(apart).sum(axis=2)
        middle += np.square(median).sum(axis=1)
        spread += np.square(np.median(apart, axis=0)).sum(axis=1)
    size = np.sqrt(middle / count)
    usual = 2.0 * np.sqrt(spread / count) + size + FLOOR
    usual[1:] += size[0]
    found: NDArray[np.float64] = np.sqrt(distance / count) / usual
    return found
