"""Which offers lie so far from the others' that their members are broken or hostile.

The escrow holds several members' values at the same coordinates, so it can compare them. The rule measures
each member against the middle of all, with estimates that stay right as long as a majority is honest:

- the middle of a coordinate is the median of the members' values, its spread the median of their distances
  from it: neither is moved beyond the honest values by a minority;
- over all coordinates of a slot, the member's *ratio* is its root mean square distance from the middle, over
  twice that of the spread plus that of the middle itself plus a floor. The middle is in it because members
  are nearly equal at first, and then the spread alone would make an outlier of whoever trains a little
  faster; the floor because what is nearly zero for all is no measure;
- the same over the coordinates of each tensor: a last layer that is turned round is little among all values;
- a ratio above ``factor * 100 ** (1 / count)`` is an outlier: few coordinates say little;
- the worst goes first, and the rest is looked at again, until nobody stands out or two are left.

Optimizer state (WASH+Opt) is naturally uneven: where one member's data are of one class its gradients vanish
while another's do not. It is measured against the size of the parameters, too, so that only what is far
beyond any gradient stands out.

In a large ensemble medians over all members at every coordinate would cost more than all the rest of an
exchange. So a cheap screen comes first, and the rule itself is applied only if the screen finds somebody
suspicious; see :func:`suspicious` for what that may miss. Up to 32 members the rule is always applied.

What it does not see: values within the factor, such as a slice of zeros, values with their signs turned, or
another model's weights; a slow drift; half of the members or more acting together; one of two members. It
says who stands out, not why.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.core import philox
from wash_fl.protocol.parts import Parts

Values = NDArray[np.float32]

FLOOR: Final = 1e-2
"""Values of this size are no measure for others: a weight that is zero in all members but one, say."""

EXACT: Final = 32
"""Up to so many members there is no screen: the rule is cheap, and applied whatever they offer."""

SAMPLE: Final = 256
"""Columns at which the screen estimates what is usual, in all, and a quarter as many in each tensor."""

MARGIN: Final = 2.0
"""By how much that estimate may be too large before the screen misses anybody."""

_JUDGES: Final = 3
_SEED_VALUES: Final = 8
_UNSHARED: Final = 1 << 13
_COLUMNS: Final = 1 << 15
_MANY_PARTS: Final = 16


def find_outliers(
    offers: Mapping[int, Values],
    factor: float,
    exact: int = EXACT,
    parts: Parts | None = None,
) -> dict[int, str]:
    """Return the members to set aside, each with the reason, on one line.

    Parameters
    ----------
    offers : mapping of int to ndarray of float32, each of shape (slots, count)
        By member, at the coordinates of one exchange; finite, as packets are.
    factor : float
        How many times farther from the middle than usual is too far; 0 sets nobody aside.
    exact : int
        Of more offers than this, the rule is applied only if :func:`suspicious` finds it worth while.
    parts : Parts, optional
        Which of the values are of which tensor; by default all are of one.

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
    parts = Parts.one(count) if parts is None else parts
    limits = factor * parts.slack
    if len(rest) > exact and not suspicious([offers[member] for member in rest], factor, parts):
        return aside
    while len(rest) >= _JUDGES:
        found = ratios([offers[member] for member in rest], parts).max(axis=1)
        worst, part = map(int, np.unravel_index(int((found / limits).argmax()), found.shape))
        # Written so that a ratio that is no number sets nobody aside.
        if not found[worst, part] > limits[part]:
            break
        name = parts.names[part] if part < len(parts.names) else ""
        where = f"{parts.sizes[part]} coordinates{f' of {name}' if name else ''}"
        aside[rest.pop(worst)] = (
            f"its values lie {found[worst, part]:.3g} times as far from the members' middle as is usual at "
            f"these {where}; outlier-factor = {factor:g} allows {limits[part]:.3g}"
        )
    return aside


def suspicious(offers: Sequence[Values], factor: float, parts: Parts | None = None) -> bool:
    """Return whether any member might have a ratio above its limit; cheap, and rather once too often.

    The root mean square of the middle is at most what is usual. So by the triangle inequality a member more
    than ``limit`` times what is usual from the middle has values with a root mean square of more than
    ``limit - 1`` times what is usual. The screen takes the root mean square of *all* of each member's values,
    so that a single value is enough, and compares it with what is usual at a sample of the columns, where
    the medians are over all members.

    Whoever the rule would set aside is found if the sample says of what is usual at most ``MARGIN`` times
    what all columns say; with no more columns than are sampled, always. That is a matter of chance, not a
    proof: it fails if few columns hold nearly all there is, and the sample has far more than its share of
    them. It cannot be steered by a member, for the sample depends on what the others offer.

    Parameters
    ----------
    offers : sequence of ndarray of float32, each of shape (slots, count)
        At least one; count is at least 1.
    factor : float
        As for :func:`find_outliers`.
    parts : Parts, optional
        As there.
    """
    slots, count = offers[0].shape
    parts = Parts.one(count) if parts is None else parts
    columns, sampled_parts = _sample(offers, parts)
    sizes = parts.sizes
    squares = np.empty((len(offers), slots, sizes.size))
    sampled = np.empty((len(offers), slots, columns.size), dtype=np.float32)
    # What overflows here is infinite, and suspicious on either side of the comparison.
    with np.errstate(over="ignore", invalid="ignore"):
        for number, offer in enumerate(offers):
            squares[number, :, :-1] = _squared(offer, parts)
            # Right after its values were read, while the cache has them.
            sampled[number] = offer.take(columns, axis=1)
        squares[..., -1] = squares[..., :-1].sum(axis=-1)
        of_sample = _squares(sampled)[1:]
        # A tensor's share in all is that of its values, however many of them are in the sample.
        shares = sizes[:-1] / sampled_parts.sizes[:-1]
        middle, spread = (_with_all(sampled_parts.sums(each) * shares) for each in of_sample)
        bound = (factor * parts.slack - 1.0) / MARGIN * _usual(middle, spread, sizes)
    # Written so that what is no number is suspicious, too: the rule itself knows what to do with it.
    return not bool(np.isfinite(bound).all() and (np.sqrt(squares / sizes) <= bound).all())


def _squared(offer: Values, parts: Parts) -> NDArray[np.float64]:
    """Return the sums of the squares, of each slot and part."""
    bounds = parts.bounds.tolist()
    if len(bounds) > _MANY_PARTS:
        return parts.sums(np.square(offer, dtype=np.float64))
    return np.array([[_square(values[begin:end]) for begin, end in pairwise(bounds)] for values in offer])


def _square(values: NDArray[np.float32]) -> float:
    """Return the sum of the squares."""
    # In pieces too short for BLAS to share out among threads, which on a busy machine wait for each other.
    pieces = (values[begin : begin + _UNSHARED] for begin in range(0, values.size, _UNSHARED))
    return sum(float(np.dot(piece, piece)) for piece in pieces)


def _sample(offers: Sequence[Values], parts: Parts) -> tuple[NDArray[np.int64], Parts]:
    """Return columns for the screen, and which of them are of which tensor.

    In each tensor one is drawn in each of so many equal strata, or all are taken if there are few.

    The seed is a hash of a few values of every member. Were the columns known beforehand, a minority could
    push the medians there to the edge of the honest values, and be measured by what it made usual.
    """
    sizes = parts.sizes[:-1]
    most = max(SAMPLE // 4, SAMPLE // len(sizes))
    counts = np.minimum(sizes, most)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    sampled = Parts(parts.names, bounds)
    if (counts == sizes).all():
        return np.arange(sizes.sum()), sampled
    digest = hashlib.blake2b(digest_size=8)
    for offer in offers:
        digest.update(offer[0, :_SEED_VALUES].tobytes())
    drawn = philox.words(int.from_bytes(digest.digest(), "little"), "screen", int(bounds[-1]))
    owner = np.repeat(np.arange(sizes.size), counts)
    stratum, size, many = np.arange(bounds[-1]) - bounds[owner], sizes[owner], counts[owner]
    begin, end = stratum * size // many, (stratum + 1) * size // many
    places = begin + philox.below(drawn, (end - begin).astype(np.uint64)).astype(np.int64)
    return parts.bounds[owner] + places, sampled


def ratios(offers: Sequence[Values], parts: Parts | None = None) -> NDArray[np.float64]:
    """Return how far each member is from the middle of all, in units of what is usual.

    Parameters
    ----------
    offers : sequence of ndarray of float32, each of shape (slots, count)
        At least one; count is at least 1.
    parts : Parts, optional
        Which of the values are of which tensor; by default all are of one.

    Returns
    -------
    ndarray of float64, shape (members, slots, parts + 1)
        In each part, and in all together.
    """
    slots, count = offers[0].shape
    parts = Parts.one(count) if parts is None else parts
    sizes = parts.sizes
    distance = np.zeros((len(offers), slots, sizes.size - 1))
    middle, spread = np.zeros((slots, sizes.size - 1)), np.zeros((slots, sizes.size - 1))
    # Piece by piece: the server is to hold slices, not several copies of them.
    columns = max(1, _COLUMNS * EXACT // max(EXACT, len(offers)))
    for begin in range(0, count, columns):
        # In float64, where the square of the largest float32 is a number.
        values = np.array([offer[:, begin : begin + columns] for offer in offers], dtype=np.float64)
        of_members, of_middle, of_spread = _squares(values)
        distance += parts.sums(of_members, begin)
        middle += parts.sums(of_middle, begin)
        spread += parts.sums(of_spread, begin)
    usual = _usual(_with_all(middle), _with_all(spread), sizes)
    found: NDArray[np.float64] = np.sqrt(_with_all(distance) / sizes) / usual
    return found


def _with_all(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sums over the parts, and behind them the sum of these."""
    return np.concatenate([sums, sums.sum(axis=-1, keepdims=True)], axis=-1)


def _squares(values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], ...]:
    """Return the squares of each member's distance from the middle, of the middle, and of the spread.

    Of values of shape (members, slots, columns); the first has that shape, the others (slots, columns).
    """
    median = _median(values)
    apart = np.abs(values - median.astype(values.dtype, copy=False))
    spread = _median(apart)
    return np.square(apart), np.square(median), np.square(spread)


def _median(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the median over the members."""
    # Sorted side by side, which the processor does many at a time: faster than to look for the middle.
    ordered = np.array(np.moveaxis(values, 0, -1), order="C")
    ordered.sort(axis=-1)
    middle = ordered[..., (len(values) - 1) // 2 : len(values) // 2 + 1]
    return np.asarray(middle.mean(axis=-1, dtype=np.float64))


def _usual(
    middle: NDArray[np.float64], spread: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how far from the middle is usual, from sums of squares, of shape (slots, parts + 1)."""
    size = np.sqrt(middle / sizes)
    usual: NDArray[np.float64] = 2.0 * np.sqrt(spread / sizes) + size + FLOOR
    usual[1:] += size[0]
    return usual
