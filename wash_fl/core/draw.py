"""Which coordinates take part in an exchange: a pure function of (seed, exchange, layout, schedule).

The cost follows the number selected, not the number of parameters, and every coordinate of a tensor
is included with exactly the tensor's probability. Coordinates are drawn in runs of consecutive ones, each
beginning at a multiple of the run length: fewer random words are needed, and runs that lie like this are rows
of a matrix and, in memory, lines of the cache. ``docs/protocol.md`` writes the algorithm down so that another
language can implement it; golden vectors are in ``tests/core/golden``.
"""

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wash_fl.core import philox
from wash_fl.core.layout import Layout
from wash_fl.core.schedule import Schedule
from wash_fl.core.selection import Selection

_1 = np.uint64(1)
_32 = np.uint64(32)
_LOW32 = np.uint64(2**32 - 1)
_HEADER_WORDS = 2
_KEPT = 2
_NO_EXCHANGE = 2**64
_MOST_AT_ONCE = 16
_RUNS_AT_ONCE = 8192

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
            drawn = self._draw(range(exchange, min(exchange + self._at_once, _NO_EXCHANGE)))
            found = drawn[0]
            for number, each in enumerate(drawn, start=exchange):
                self._keep(self._drawn, number, each, _KEPT + self._at_once)
        return found

    @cached_property
    def _at_once(self) -> int:
        """How many exchanges are drawn together: who asks for one asks for the next.

        What drawing a few hundred runs costs is mostly that of some forty calls of NumPy, however many runs
        each is for.
        """
        if self.schedule.run_length == 1:
            return 1
        runs = int(self.schedule.config.p * float(self._runs.sum()))
        return max(1, min(_MOST_AT_ONCE, _RUNS_AT_ONCE // (runs + 1)))

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

    def _draw(self, exchanges: range) -> list[Selection]:
        """Return the coordinates of exchanges, drawn together."""
        tensors = len(self.layout.tensors)
        headers = _HEADER_WORDS * tensors
        counts = np.empty((len(exchanges), tensors), dtype=np.int64)
        rotations, words = [], []
        for exchange, row in zip(exchanges, counts, strict=True):
            # A stream's first words are the same however many are drawn: at most so many are needed.
            most = int((self._expectation(exchange) >> _32).sum()) + tensors
            drawn = philox.words(self.seed, "coords", headers + most, index=exchange)
            row[:] = self._counts(exchange, drawn[:headers])
            rotations.append(drawn[1:headers:_HEADER_WORDS])
            words.append(drawn[headers : headers + int(row.sum())])

        # One entry per exchange and tensor, and then one per selected run.
        sizes = np.tile(self._runs, len(exchanges))
        per_tensor = counts.reshape(-1)
        ends = np.cumsum(per_tensor)
        firsts, total = ends - per_tensor, int(ends[-1])
        rotation = philox.below(np.concatenate(rotations), sizes)
        columns = np.array([sizes, per_tensor, firsts, rotation], dtype=np.uint64)
        size, count, first, turn = np.repeat(columns, per_tensor, axis=1)
        stratum = np.arange(total, dtype=np.uint64) - first
        start = stratum * size // count
        end = (stratum + _1) * size // count
        place = start + philox.below(np.concatenate(words), end - start) + turn
        beyond = place >= size
        place -= size * beyond
        # Within a tensor the strata are in order but for those that the rotation took beyond its end, which
        # come first: so many places each one moves.
        before = np.zeros(total + 1, dtype=np.uint64)
        np.cumsum(beyond, out=before[1:])
        order = stratum + np.repeat(before[ends] - before[firsts], per_tensor)
        order -= count * (order >= count)
        runs = np.empty(total, dtype=np.int64)
        runs[(first + order).astype(np.int64)] = place

        lengths, bounds = self._lengths.tolist(), [0, *ends[tensors - 1 :: tensors].tolist()]
        return [
            Selection(self.layout, lengths, row.tolist(), runs[begin:end])
            for row, (begin, end) in zip(counts, itertools.pairwise(bounds), strict=True)
        ]

    def _counts(self, exchange: int, header: philox.Words | None = None) -> NDArray[np.int64]:
        """Return the number of selected runs per tensor; ``header`` are the exchange's first words.

        Of a header's two words per tensor one decides the count, one the rotation.
        """
        found = self._counted.get(exchange)
        if found is None:
            if header is None:
                words = _HEADER_WORDS * len(self.layout.tensors)
                header = philox.words(self.seed, "coords", words, index=exchange)
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
    def _keep(kept: dict[_Key, _Kept], key: _Key, found: _Kept, most: int = _KEPT) -> None:
        if len(kept) >= most:
            kept.pop(next(iter(kept)), None)
        kept[key] = found
