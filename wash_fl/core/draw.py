"""Which coordinates take part in an exchange: a pure function of (seed, exchange, layout, schedule).

The cost follows the number selected, not the number of parameters, and every coordinate of a tensor
is included with exactly the tensor's probability. ``docs/protocol.md`` writes the algorithm down so that
another language can implement it; golden vectors are in ``tests/core/golden``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wash_fl.core import philox
from wash_fl.core.layout import Layout
from wash_fl.core.schedule import Schedule

_32 = np.uint64(32)
_LOW32 = np.uint64(2**32 - 1)
_HEADER_WORDS = 2


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

    def count(self, exchange: int) -> int:
        """Return how many coordinates an exchange has, without drawing them."""
        return int(self._counts(exchange, self._header(exchange)).sum())

    def coordinates(self, exchange: int) -> NDArray[np.int64]:
        """Return the distinct coordinates of an exchange (numbered from 1), sorted, shape (count,).

        Per tensor of size d with probability p: ``floor(p * d)`` coordinates and, with probability
        ``frac(p * d)``, one more; the tensor is cut into as many strata of (nearly) equal size, one place
        is drawn in each, and all are rotated by one uniform offset. Strata make them distinct, the
        rotation makes each coordinate equally probable whatever the strata are.
        """
        header = self._header(exchange)
        counts = self._counts(exchange, header)
        total = int(counts.sum())
        if total == 0:
            return np.empty(0, dtype=np.int64)
        drawn = philox.words(self.seed, "coords", len(header) + total, index=exchange)[len(header) :]

        # One entry per selected coordinate from here on: its tensor's size, count, rotation, offset.
        sizes = self.layout.sizes.astype(np.uint64)
        size, count = np.repeat(sizes, counts), np.repeat(counts.astype(np.uint64), counts)
        first_of_tensor = np.repeat(np.cumsum(counts) - counts, counts)
        stratum = (np.arange(total) - first_of_tensor).astype(np.uint64)
        start = stratum * size // count
        end = (stratum + np.uint64(1)) * size // count
        rotation = philox.below(header[1::_HEADER_WORDS], sizes)
        place = start + philox.below(drawn, end - start) + np.repeat(rotation, counts)
        place -= np.where(place >= size, size, np.uint64(0))
        coordinates = place.astype(np.int64) + np.repeat(self.layout.offsets, counts)
        coordinates.sort()
        return coordinates

    def _header(self, exchange: int) -> philox.Words:
        """Return two words per tensor: one decides the count, one the rotation."""
        return philox.words(self.seed, "coords", _HEADER_WORDS * len(self.layout.tensors), index=exchange)

    def _counts(self, exchange: int, header: philox.Words) -> NDArray[np.int64]:
        # p in units of 2**-32 times a size under 2**31 stays under 2**63.
        expected = self.schedule.fixed_point(self.layout, exchange) * self.layout.sizes.astype(np.uint64)
        one_more = (header[0::_HEADER_WORDS] >> _32) < (expected & _LOW32)
        counts: NDArray[np.int64] = ((expected >> _32) + one_more).astype(np.int64)
        return counts
