"""Stateless randomness: 64-bit words as a pure function of (run seed, purpose, index, member).

The generator is Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
Only its raw words are used: NumPy guarantees those for ever, and not the distributions on top of them.
``docs/protocol.md`` specifies the same for other languages.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_LOW32: Final = np.uint64(0xFFFFFFFF)
_32: Final = np.uint64(32)


def words(seed: int, purpose: str, count: int, *, index: int = 0, member: int = 0) -> Words:
    """Return the first ``count`` random words of one stream.

    The key is ``(seed, purpose)``, the purpose as its ASCII bytes, zero-padded, read little-endian;
    the counter starts at ``(1, index, member, 0)``, least significant word first.

    Parameters
    ----------
    seed : int
        The run seed, 0 to 2**64 - 1.
    purpose : str
        What the words are for, 1 to 8 ASCII characters: different purposes never share a word.
    count : int
        How many words.
    index : int
        Round, exchange, epoch or step: whatever counts time for this purpose.
    member : int
        Index of the member, for draws that differ between members.

    Returns
    -------
    ndarray of uint64, shape (count,)
    """
    return stream(seed, purpose, index=index, member=member).random_raw(count)


def stream(seed: int, purpose: str, *, index: int = 0, member: int = 0) -> np.random.Philox:
    """Return the stream of :func:`words` as a generator, to take with ``random_raw`` piece by piece."""
    tag = purpose.encode("ascii")
    assert 1 <= len(tag) <= 8, purpose
    # NumPy increments the counter before its first block, so 0 here is the 1 of the specification.
    key = np.array([seed, int.from_bytes(tag, "little")], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, index, member, 0], dtype=np.uint64))


def seed_of(seed: int, purpose: str, *, index: int = 0, member: int = 0) -> int:
    """Return a 63-bit seed for a library's own generator (``torch.manual_seed``, say)."""
    return int(words(seed, purpose, 1, index=index, member=member)[0] >> np.uint64(1))


def order(seed: int, purpose: str, size: int, *, index: int = 0, member: int = 0) -> NDArray[np.int64]:
    """Return a uniform random permutation of ``range(size)``: the stable argsort of ``size`` words."""
    drawn = words(seed, purpose, size, index=index, member=member)
    return np.argsort(drawn, kind="stable").astype(np.int64, copy=False)


def below(drawn: Words, bound: Words | np.uint64) -> Words:
    """Map words to integers in ``[0, bound)``, for bounds under 2**32: the high word of ``drawn * bound``.

    An integer is off from probability ``1 / bound`` by less than 2**-64.
    """
    high, low = drawn >> _32, drawn & _LOW32
    mapped: Words = (high * bound + ((low * bound) >> _32)) >> _32
    return mapped
