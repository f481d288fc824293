"""Which coordinates take part in an exchange: a pure function of (seed, exchange, layout, schedule).

The cost follows the number selected, not the number of parameters, and every coordinate of a tensor
is included with exactly the tensor's probability. ``docs/protocol.md`` writes the algorithm down so that
another language can implement it; golden vectors are in ``tests/core/golden``.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wash_fl.core import philox
from wash_fl.core.layout import Layout
from wash_fl.core.schedule import Schedule

_32 = np.uint64(32)
_LOW32 = np.uint64(2**32 - 1)
_HEADER_WORDS = 2
_KEPT = 2


@dataclass(frozen=True)
class Draw:
    """The coordinates of every exchange of a run.

    Parameters
    ----------
    seed : int
        The run seed.
    layout : Layout
        What is exchanged.
    schedule : Schedule
        How probable each tensor's coordinates are at each exchange.
    """

    seed: int
    layout: Layout
    schedule: Schedule

    # The last ones: several parts of an exchange ask for the same.
    _counted: dict[int, NDArray[np.int64]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _drawn: dict[int, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def count(self, exchange: int) -> int:
        """Return how many coordinates an exchange has, without drawing them."""
        return int(self._counts(exchange).sum())

    def coordinates(self, exchange: int) -> NDArray[np.int64]:
        """Return the distinct coordinates of an exchange (numbered from 1), sorted, shape (count,).

        Per tensor of size d with probability p: ``floor(p * d)`` coordinates and, with probability
        ``frac(p * d)``, one more; the tensor is cut into as many strata of (nearly) equal size, one place
        is drawn in each, and all are rotated by one uniform offset. Strata make them distinct, the
        rotation makes each coordinate equally probable whatever the strata are.
        """
        found = self._drawn.get(exchange)
        if found is None:
            found = self._draw(exchange)
            found.flags.writeable = False
            self._keep(self._drawn, exchange, found)
        return found

    def _draw(self, exchange: int) -> NDArray[np.int64]:
        counts = self._counts(exchange)
        total = int(counts.sum())
        if total == 0:
            return np.empty(0, dtype=np.int64)
        header_words = _HEADER_WORDS * len(self.layout.tensors)
        words = philox.words(self.seed, "coords", header_words + total, index=exchange)
        header, drawn = words[:header_words], words[header_words:]

        # One entry per selected coordinate from here on: its tensor's size, count, rotation, offset.
        sizes = self.layout.sizes.astype(np.uint64)
        hit = counts > 0
        ends = np.cumsum(counts)
        size, count = np.repeat(sizes, counts), np.repeat(counts, counts)
        first_of_tensor = np.repeat(ends - counts, counts)
        stratum = np.arange(total) - first_of_tensor
        start = stratum.astype(np.uint64) * size // count.astype(np.uint64)
        # A stratum ends where the next begins, and the last where its tensor does.
        end = np.empty_like(start)
        end[:-1] = start[1:]
        end[ends[hit] - 1] = sizes[hit]
        rotation = philox.below(header[1::_HEADER_WORDS], sizes)
        place = start + philox.below(drawn, end - start) + np.repeat(rotation, counts)
        beyond = place >= size
        place -= size * beyond
        # Within a tensor the strata are in order but for those that the rotation took beyond its end, which
        # come first: so many places each one moves.
        moved = np.zeros(len(counts), dtype=np.int64)
        moved[hit] = np.add.reduceat(beyond, (ends - counts)[hit], dtype=np.int64)
        order = stratum + np.repeat(moved, counts)
        order -= np.where(order >= count, count, 0)
        coordinates = np.empty(total, dtype=np.int64)
        coordinates[first_of_tensor + order] = place.astype(np.int64) + np.repeat(self.layout.offsets, counts)
        return coordinates

    def _header(self, exchange: int) -> philox.Words:
        """Return two words per tensor: one decides the count, one the rotation."""
        return philox.words(self.seed, "coords", _HEADER_WORDS * len(self.layout.tensors), index=exchange)

    def _counts(self, exchange: int) -> NDArray[np.int64]:
        """Return the number of coordinates per tensor."""
        found = self._counted.get(exchange)
        if found is None:
            header = self._header(exchange)
            # p in units of 2**-32 times a size under 2**31 stays under 2**63.
            expected = self.schedule.fixed_point(self.layout, exchange) * self.layout.sizes.astype(np.uint64)
            one_more = (header[0::_HEADER_WORDS] >> _32) < (expected & _LOW32)
            found = ((expected >> _32) + one_more).astype(np.int64)
            self._keep(self._counted, exchange, found)
        return found

    @staticmethod
    def _keep(kept: dict[int, NDArray[np.int64]], exchange: int, found: NDArray[np.int64]) -> None:
        if len(kept) >= _KEPT:
            kept.pop(next(iter(kept)), None)
        kept[exchange] = found
