"""What becomes of the offers of an exchange: WASH's shuffle, or a sparse average.

An average in pairs is a shuffle in pairs here: each member receives what its partner offered, and takes the
mean itself (:func:`wash_fl.core.codec.taken_over`). Whoever mixes then does no arithmetic on values.

Every function takes the offers of one exchange in order of member index and returns what each of those
members receives, in the same order. The number of members that offered is all that the draws depend on
besides the seed and the exchange.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig
from wash_fl.core import philox
from wash_fl.core.robust import NONE, robust_mean

Values = NDArray[np.float32]

_TABLE_BYTES: Final = 12 << 20
_BLOCK_BYTES: Final = 4 << 20
_TOGETHER: Final = 1 << 15
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
        Its ``mix`` and ``topology``, as they hold at this exchange
        (:func:`wash_fl.core.schedule.options_at`).

    Returns
    -------
    list of ndarray of float32
        Shaped like the offers. But for an average over all they are the values that were offered, each
        exactly once.
    """
    if config.mix == "average" and not config.members_average:
        return [average(offers, config.robust)] * len(offers)
    if config.topology == "permutation":
        return permute(offers, seed=seed, exchange=exchange)
    return [offers[source] for source in matching(len(offers), seed=seed, exchange=exchange)]


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
    members = len(offers)
    slots, count = offers[0].shape
    mixed = np.empty((members, slots, count), dtype=np.float32)
    kind = np.dtype(np.uint16 if members <= 1 << 16 else np.uint32)
    # Coordinates do not depend on each other. They are taken a piece at a time, for memory: the partners of a
    # wide piece, whose words are quick to draw, and in it as many values as the cache holds, for the swaps go
    # all over them.
    for piece in _pieces(range(count), members * kind.itemsize, _TABLE_BYTES):
        stream = philox.stream(seed, "permute", index=exchange)
        partners = _partners(stream, members, count, piece, kind)
        for columns in _pieces(piece, members * slots * mixed.itemsize, _BLOCK_BYTES):
            here = slice(columns.start, columns.stop)
            block = np.stack([offer[:, here] for offer in offers])
            _swap(block, partners[:, columns.start - piece.start : columns.stop - piece.start])
            mixed[:, :, here] = block
    return list(mixed)


def _pieces(columns: range, each: int, limit: int) -> Iterator[range]:
    """Cut columns of ``each`` bytes into pieces, nearly equal, of at most ``limit`` or of a single column."""
    number = min(len(columns), -(-len(columns) * each // limit))
    for place in range(number):
        yield columns[len(columns) * place // number : len(columns) * (place + 1) // number]


def _partners(
    stream: np.random.Philox, members: int, count: int, columns: range, kind: np.dtype[Any]
) -> NDArray[Any]:
    """Return with whom each member swaps at these columns, the last member first, the first not at all."""
    partners = np.empty((members - 1, len(columns)), dtype=kind)
    done = 0
    for drawn in _words(stream, members - 1, count, columns):
        bounds = np.arange(members - done, members - done - len(drawn), -1, dtype=np.uint64)
        partners[done : done + len(drawn)] = _below(drawn, bounds[:, np.newaxis])
        done += len(drawn)
    return partners


def _words(stream: np.random.Philox, rows: int, count: int, columns: range) -> Iterator[NDArray[np.uint64]]:
    """Yield these columns of a stream's words, which are so many rows of ``count``; some rows at a time."""
    together = max(1, _TOGETHER // len(columns))
    position = 0
    for first in range(0, rows, together):
        some = range(first, min(first + together, rows))
        if len(columns) == count:
            yield stream.random_raw(len(some) * count).reshape(len(some), count)
            continue
        drawn = np.empty((len(some), len(columns)), dtype=np.uint64)
        for row, kept in zip(some, drawn, strict=True):
            # A value of the counter is four words; ``advance`` jumps by whole values.
            counter, before = divmod(row * count + columns.start, _WORDS)
            stream.advance(counter - position)
            kept[:] = stream.random_raw(before + len(columns))[before:]
            position = counter - -(before + len(columns)) // _WORDS
        yield drawn


def _below(drawn: NDArray[np.uint64], bounds: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return ``below(drawn, bounds)``, one bound for each row, with half the work."""
    product = drawn >> _32
    product *= bounds
    # The words' low halves add less than a bound to these products, which seldom makes a difference.
    if int((product & _LOW32).max()) + int(bounds.max()) > _LOW32:
        return philox.below(drawn, bounds)
    product >>= _32
    return product


def _swap(block: Values, partners: NDArray[Any]) -> None:
    """Swap each member's values with its partners', the last member first, in every slot."""
    members, slots, width = block.shape
    # As integers: no value is looked at.
    values = block.view(np.uint32)
    flat = values.reshape(-1)
    moved = np.empty(width, dtype=np.uint32)
    together = max(1, _TOGETHER // width)
    for first in range(0, members - 1, together):
        places = partners[first : first + together].astype(np.intp)
        places *= slots * width
        places += np.arange(width)
        last = members - 1 - first
        for slot in range(slots):
            for own, each in zip(values[last : last - len(places) : -1, slot], places, strict=True):
                # All places exist; to clip them is the mode that does not check it again.
                flat.take(each, out=moved, mode="clip")
                flat[each] = own
                own[:] = moved
            places += width


def average(offers: Sequence[Values], robust: str = NONE) -> Values:
    """Return the mean at each coordinate, summed in float64: SPARTA's rule (Exo Labs, 2025).

    ``robust`` takes a robust mean instead (:mod:`wash_fl.core.robust`), which conserves no sum.
    """
    if robust != NONE:
        return robust_mean(offers, robust).astype(np.float32)
    total = np.zeros(offers[0].shape, dtype=np.float64)
    for offer in offers:
        total += offer
    mean: Values = (total / len(offers)).astype(np.float32)
    return mean
