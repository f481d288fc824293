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
- so is who has the middle's values with their signs turned, by a quarter of their size or more, at 64
  coordinates or more of a matrix or kernel, or of all: that is near, and undoes what the others have learned;
- the worst goes first, and the rest is looked at again, until nobody stands out or two are left.

Optimizer state (WASH+Opt) is naturally uneven: where one member's data are of one class its gradients vanish
while another's do not. It is measured against the size of the parameters, too, so that only what is far
beyond any gradient stands out.

In a large ensemble medians over all members at every coordinate would cost more than all the rest of an
exchange. So a cheap screen comes first, and the rule itself is applied only if the screen finds somebody
suspicious; see :func:`suspicious` for what that may miss. Up to 32 members the rule is always applied.

What it does not see: values within the factor, such as a slice of zeros or another model's weights; half of
the members or more acting together; one of two members. It says who stands out, not why.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.core import philox
from wash_fl.protocol.distances import (
    JUDGES,
    Distances,
    Grain,
    shares_of,
    squared_distances,
    usual_distance,
    with_all,
)
from wash_fl.protocol.parts import Parts

Values = NDArray[np.float32]

EXACT: Final = 32
"""Up to so many members there is no screen: the rule is cheap, and applied whatever they offer."""

SAMPLE: Final = 256
"""Columns at which the screen estimates what is usual, in all, and a quarter as many in each tensor."""

MARGIN: Final = 2.0
"""By how much that estimate may be too large before the screen misses anybody."""

TURNED: Final = 0.25
"""How much of the middle a member may have with its signs turned; honest ones have .17 or more, unturned."""

TELLING: Final = 64
"""So many coordinates say whether signs are turned."""

_SEED_VALUES: Final = 8
_UNSHARED: Final = 1 << 13
_MANY_PARTS: Final = 16


def find_outliers(
    offers: Mapping[int, Values],
    factor: float,
    exact: int = EXACT,
    parts: Parts | None = None,
    grain: Grain = 0.0,
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
    grain : ndarray of float64, shape (slots, parts + 1), or 0
        How coarse the offers are (:func:`wash_fl.protocol.distances.grain_of`).

    Returns
    -------
    dict of int to str
        Empty with fewer than three offers: of two nobody can say which one is wrong.
    """
    rest = sorted(offers)
    count = offers[rest[0]].shape[1] if rest else 0
    if factor <= 0 or count == 0:
        return {}
    parts = Parts.one(count) if parts is None else parts
    if len(rest) > exact and not suspicious([offers[member] for member in rest], factor, parts, grain):
        return {}

    def look(members: Sequence[int]) -> Distances:
        values = [offers[member] for member in members]
        distances = Distances(len(values), len(values[0]), parts, grain)
        distances.add(values)
        return distances

    return worst_first(rest, look, factor, parts)


def worst_first(
    members: Sequence[int],
    look: Callable[[Sequence[int]], Distances],
    factor: float,
    parts: Parts,
) -> dict[int, str]:
    """Return the members to set aside, the worst first, each with the reason.

    Parameters
    ----------
    members : sequence of int
        Who is looked at.
    look : callable
        Returns how far some of them are from the middle of these.
    factor : float
        As for :func:`find_outliers`.
    parts : Parts
        Of what they are.
    """
    rest, aside, limits = list(members), {}, factor * parts.slack
    telling = (parts.sizes >= TELLING) & parts.signed
    while len(rest) >= JUDGES:
        distances = look(rest)
        far, turned = distances.ratios().max(axis=1), -distances.shares()
        excess = np.maximum(far / limits, np.where(telling, turned / TURNED, 0.0))
        worst, part = map(int, np.unravel_index(int(excess.argmax()), excess.shape))
        # Written so that what is no number sets nobody aside.
        if not excess[worst, part] > 1.0:
            break
        name = parts.names[part] if part < len(parts.names) else ""
        where = f"these {parts.sizes[part]} coordinates{f' of {name}' if name else ''}"
        is_far = far[worst, part] > limits[part]
        aside[rest.pop(worst)] = (
            f"its values lie {far[worst, part]:.3g} times as far from the members' middle as is usual at "
            f"{where}; outlier-factor = {factor:g} allows {limits[part]:.3g}"
            if is_far
            else f"its values have {turned[worst, part]:.3g} of the members' middle with its signs turned "
            f"at {where}; {TURNED:g} is allowed"
        )
    return aside


def suspicious(
    offers: Sequence[Values], factor: float, parts: Parts | None = None, grain: Grain = 0.0
) -> bool:
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
    parts, grain
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
        median, _, *of_sample = squared_distances(sampled)
        # A tensor's share in all is that of its values, however many of them are in the sample.
        shares = sizes[:-1] / sampled_parts.sizes[:-1]
        middle, spread = (with_all(sampled_parts.sums(each) * shares) for each in of_sample)
        along = with_all(sampled_parts.sums(sampled[:, 0] * median[0]) * shares)
        opposed = (shares_of(along, middle[0], sizes, grain) < 0) & (sizes >= TELLING) & parts.signed
        bound = (factor * parts.slack - 1.0) / MARGIN * usual_distance(middle, spread, sizes, grain)
    # Written so that what is no number is suspicious, too: the rule itself knows what to do with it.
    usual = bool(np.isfinite(bound).all() and (np.sqrt(squares / sizes) <= bound).all())
    return not usual or bool(opposed.any())


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
    sampled = Parts(parts.names, bounds, parts.signed)
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
