"""What becomes of the offers of an exchange: WASH's shuffle, or a sparse average.

Every function takes the offers of one exchange in order of member index and returns what each of those
members receives, in the same order. The number of members that offered is all that the draws depend on
besides the seed and the exchange.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig
from wash_fl.core import philox

Values = NDArray[np.float32]

_BLOCK_BYTES: Final = 12 << 20
_WORDS: Final = 4
_32: Final = np.uint64(32)
_LOW32: Final = np.uint64(2**32 - 1)


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
    members, slots, count = mixed.shape
    # Coordinates do not depend on each other, so they are taken a block at a time: as many as the cache holds
    # of all members, for the swaps go all over it.
    blocks = min(count, -(-mixed.nbytes // _BLOCK_BYTES))
    edges = [count * number // blocks for number in range(blocks + 1)] if blocks else []
    for begin, end in pairwise(edges):
        columns = range(begin, end)
        words = _words(philox.stream(seed, "permute", index=exchange), members - 1, count, columns)
        for last, drawn in zip(range(members - 1, 0, -1), words, strict=True):
            _swap(mixed, last, slice(begin, end), _places(drawn, last + 1, slots * count, begin))
    return list(mixed)


def _words(stream: np.random.Philox, rows: int, count: int, columns: range) -> Iterator[NDArray[np.uint64]]:
    """Yield these columns of a stream's words, as so many rows of ``count`` each."""
    if len(columns) == count:
        for _ in range(rows):
            yield np.asarray(stream.random_raw(count), dtype=np.uint64)
        return
    position = 0
    for row in range(rows):
        # A value of the counter is four words; ``advance`` jumps by whole values.
        counter, before = divmod(row * count + columns.start, _WORDS)
        stream.advance(counter - position)
        drawn = np.asarray(stream.random_raw(before + len(columns)), dtype=np.uint64)
        position = counter - -drawn.size // _WORDS
        yield drawn[before:]


def _places(drawn: NDArray[np.uint64], bound: int, stride: int, begin: int) -> NDArray[np.intp]:
    """Return where the partners' values are, member by member ``stride`` apart: ``below(drawn, bound)``."""
    product = drawn >> _32
    product *= np.uint64(bound)
    # The words' low halves add less than ``bound`` to these products, which seldom makes a difference.
    if int((product & _LOW32).max()) + bound > _LOW32:
        product = philox.below(drawn, np.uint64(bound))
    else:
        product >>= _32
    places = product.view(np.int64)
    places *= stride
    places += np.arange(begin, begin + drawn.size)
    return places.astype(np.intp, copy=False)


def _swap(mixed: Values, last: int, columns: slice, places: NDArray[np.intp]) -> None:
    """Swap a member's values with those at ``places``, in every slot."""
    # As integers: no value is looked at.
    flat = mixed.reshape(-1).view(np.uint32)
    moved = np.empty(places.size, dtype=np.uint32)
    for own in mixed[last].view(np.uint32):
        # All places exist; to clip them is the mode that does not check it again.
        flat.take(places, out=moved, mode="clip")
        flat[places] = own[columns]
        own[columns] = moved
        places += own.size


def average(offers: Sequence[Values]) -> Values:
    """Return the mean at each coordinate, summed in float64: SPARTA's rule (Exo Labs, 2025)."""
    total = np.zeros(offers[0].shape, dtype=np.float64)
    for offer in offers:
        total += offer
    mean: Values = (total / len(offers)).astype(np.float32)
    return mean
