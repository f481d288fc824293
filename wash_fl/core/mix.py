"""What becomes of the offers of an exchange: WASH's shuffle, or a sparse average.

Every function takes the offers of one exchange in order of member index and returns what each of those
members receives, in the same order. The number of members that offered is all that the draws depend on
besides the seed and the exchange.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig
from wash_fl.core import philox

Values = NDArray[np.float32]


def mix(offers: Sequence[Values], *, seed: int, exchange: int, config: ExchangeConfig) -> list[Values]:
    """Return what each member receives for its offer.

    Parameters
    ----------
    offers : sequence of ndarray of float32, each of shape (slots, count)
        At least two.
    seed, exchange : int
        The run seed and the number of the exchange.
    config : ExchangeConfig
        Its ``mix`` and ``topology``.

    Returns
    -------
    list of ndarray of float32
        Shaped like the offers. A shuffle returns the values that were offered, each exactly once.
    """
    if config.mix == "average":
        return [average(offers)] * len(offers)
    if config.topology == "pairs":
        return [offers[source] for source in matching(len(offers), seed=seed, exchange=exchange)]
    return permute(offers, seed=seed, exchange=exchange)


def matching(members: int, *, seed: int, exchange: int) -> list[int]:
    """Return from whom each member receives: a random perfect matching; an odd number has one 3-cycle.

    Nobody receives its own values, and every matching is equally probable.
    """
    shuffled = philox.order(seed, "matching", members, index=exchange).tolist()
    source = list(range(members))
    paired = members if members % 2 == 0 else members - 3
    for first, second in zip(shuffled[:paired:2], shuffled[1:paired:2], strict=True):
        source[first], source[second] = second, first
    if members % 2 and members > 1:
        a, b, c = shuffled[-3:]
        source[a], source[b], source[c] = b, c, a
    return source


def permute(offers: Sequence[Values], *, seed: int, exchange: int) -> list[Values]:
    """Permute each coordinate's values among the members, uniformly and independently: the paper's WASH.

    Fisher and Yates from the last member down, all coordinates at a time: at member i, coordinate k swaps
    with member ``below(word, i + 1)``; the words come in that order, i first, then k.
    """
    mixed = np.stack(offers)
    members, _, count = mixed.shape
    columns = np.arange(count)
    stream = philox.stream(seed, "permute", index=exchange)
    for last in range(members - 1, 0, -1):
        drawn = np.asarray(stream.random_raw(count), dtype=np.uint64)
        partner = philox.below(drawn, np.uint64(last + 1)).astype(np.intp)
        moved = mixed[partner, :, columns]
        mixed[partner, :, columns] = mixed[last].T
        mixed[last] = moved.T
    return list(mixed)


def average(offers: Sequence[Values]) -> Values:
    """Return the mean at each coordinate, summed in float64: SPARTA's rule (Exo Labs, 2025)."""
    total = np.zeros(offers[0].shape, dtype=np.float64)
    for offer in offers:
        total += offer
    mean: Values = (total / len(offers)).astype(np.float32)
    return mean
