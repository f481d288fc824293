"""Which coordinates take part in an exchange: a pure function of (seed, exchange, layout, schedule).

The cost follows the number selected, not the number of parameters, and every coordinate of a tensor
is included with exactly the tensor's probability. Coordinates are drawn in runs of consecutive ones, each
beginning at a multiple of the run length: fewer random words are needed, and runs that lie like this are rows
of a matrix and, in memory, lines of the cache. ``docs/protocol.md`` writes the algorithm down so that another
language can implement it; golden vectors are in ``tests/core/golden``.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wash_fl.core import philox
from wash_fl.core.layout import Layout
from wash_fl.core.schedule import Schedule
from wash_fl.core.selection import Selection

_32 = np.uint64(32)
_LOW32 = np.uint64(2**32 - 1)
_HEADER_WORDS = 2
_KEPT = 2

_Key = TypeVar("_Key")
_Kept = TypeVar("_Kept")


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
        How probable each tensor's coordinates are at each exchange, and how long its runs are.
    """

    seed: int
    layout: Layout
    schedule: Schedule

    # The last ones: several parts of an exchange ask for the same.
    _counted: dict[int, NDArray[np.int64]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _drawn: dict[int, Selection] = field(default_factory=dict, init=False, repr=False, compare=False)
    _expected: dict[float, NDArray[np.uint64]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def count(self, exchange: int) -> int:
        """Return how many coordinates an exchange has; they are not drawn if all runs are equally long."""
        if self._uneven:
            return self.selection(exchange).count
        return int(self._counts(exchange) @ self._lengths)

    def coordinates(self, exchange: int) -> NDArray[np.int64]:
        """Return the distinct coordinates of an exchange (numbered from 1), sorted, shape (count,)."""
        return self.selection(exchange).coordinates

    def selection(self, exchange: int) -> Selection:
        """Return the coordinates of an exchange (numbered from 1) as runs, tensor by tensor.

        A tensor of at least r * r values, r being the run length, is cut into runs of r values, the last of
        what is left; a smaller one into single values, for whole runs would be too coarse for it. Of a
        tensor's m runs, each selected with probability p, ``floor(p * m)`` are drawn and, with probability
        ``frac(p * m)``, one more: the m are divided into as many strata of (nearly) equal size, one is drawn
        in each, and all are rotated by one uniform offset. Strata make them distinct, the rotation makes each
        run, and so each coordinate, equally probable whatever the strata are.
        """
        found = self._drawn.get(exchange)
        if found is None:
            found = Selection(self.layout, self._lengths, self._counts(exchange), self._draw(exchange))
            self._keep(self._drawn, exchange, found)
        return found

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        """Values of a run, per tensor."""
        length, sizes = self.schedule.run_length, self.layout.sizes
        return np.where(sizes >= length * length, length, 1)

    @cached_property
    def _uneven(self) -> bool:
        """Whether some tensor's last run is shorter than its others."""
        return bool((self.layout.sizes % self._lengths).any())

    @cached_property
    def _runs(self) -> NDArray[np.uint64]:
        """Runs per tensor, the shorter one at its end included."""
        return (-(-self.layout.sizes // self._lengths)).astype(np.uint64)

    def _draw(self, exchange: int) -> NDArray[np.int64]:
        """Return the numbers of the runs within their tensor, sorted, tensor after tensor."""
        counts = self._counts(exchange)
        total = int(counts.sum())
        if total == 0:
            return np.empty(0, dtype=np.int64)
        header_words = _HEADER_WORDS * len(self.layout.tensors)
        words = philox.words(self.seed, "coords", header_words + total, index=exchange)
        header, drawn = words[:header_words], words[header_words:]

        # One entry per selected run from here on: its tensor's size in runs, count, rotation.
        sizes = self._runs
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
        runs = np.empty(total, dtype=np.int64)
        runs[first_of_tensor + order] = place
        return runs

    def _header(self, exchange: int) -> philox.Words:
        """Return two words per tensor: one decides the count, one the rotation."""
        return philox.words(self.seed, "coords", _HEADER_WORDS * len(self.layout.tensors), index=exchange)

    def _counts(self, exchange: int) -> NDArray[np.int64]:
        """Return the number of selected runs per tensor."""
        found = self._counted.get(exchange)
        if found is None:
            header = self._header(exchange)
            expected = self._expectation(exchange)
            one_more = (header[0::_HEADER_WORDS] >> _32) < (expected & _LOW32)
            found = ((expected >> _32) + one_more).astype(np.int64)
            self._keep(self._counted, exchange, found)
        return found

    def _expectation(self, exchange: int) -> NDArray[np.uint64]:
        """Return how many runs are expected per tensor, in units of 2**-32: most exchanges have the same."""
        factor = self.schedule.over_time(exchange)
        found = self._expected.get(factor)
        if found is None:
            # p in units of 2**-32 times a size under 2**31 stays under 2**63.
            found = self.schedule.fixed_point(self.layout, exchange) * self._runs
            self._keep(self._expected, factor, found)
        return found

    @staticmethod
    def _keep(kept: dict[_Key, _Kept], key: _Key, found: _Kept) -> None:
        if len(kept) >= _KEPT:
            kept.pop(next(iter(kept)), None)
        kept[key] = found
