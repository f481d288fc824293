"""The coordinates of one exchange, tensor by tensor: what values are read from, and written to."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.layout import Layout

Indices = NDArray[np.int64]


class Part(NamedTuple):
    """What an exchange concerns of one tensor: some of the runs of equal length that the tensor is cut into.

    Attributes
    ----------
    tensor : int
        Its position in the layout.
    length : int
        Values of a run; the tensor's last run has what is left, and so may be shorter.
    runs : ndarray of int64, shape (count,)
        Numbers of the runs, sorted: run j begins at the tensor's element ``j * length``.
    whole : int
        How many of them have ``length`` values: all, or all but the last.
    begin, end : int
        Where their values are among those of the exchange.
    """

    tensor: int
    length: int
    runs: Indices
    whole: int
    begin: int
    end: int

    def elements(self) -> Indices:
        """Return the indices into the flattened tensor, sorted, shape (end - begin,)."""
        if self.length == 1:
            return self.runs
        every = self.runs[:, np.newaxis] * self.length + np.arange(self.length)
        return every.reshape(-1)[: self.end - self.begin]


@dataclass(frozen=True, eq=False)
class Selection:
    """The coordinates of one exchange.

    Parameters
    ----------
    layout : Layout
        What they index.
    lengths : ndarray of int64, shape (tensors,)
        Values of a run, per tensor.
    counts : ndarray of int64, shape (tensors,)
        Runs that are selected, per tensor.
    runs : ndarray of int64, shape (sum of counts,)
        Their numbers within their tensor, tensor after tensor, sorted within each.
    """

    layout: Layout
    lengths: Indices
    counts: Indices
    runs: Indices

    @classmethod
    def of(cls, layout: Layout, coordinates: Indices) -> "Selection":
        """Return the selection of distinct sorted coordinates, value by value."""
        counts = np.diff(layout.boundaries(coordinates))
        places = coordinates - np.repeat(layout.offsets, counts)
        return cls(layout, np.ones_like(counts), counts, places)

    @property
    def count(self) -> int:
        """Number of coordinates."""
        return int(self.bounds[-1])

    @cached_property
    def bounds(self) -> Indices:
        """Where each tensor's values begin among those of the exchange, and the end, shape (tensors + 1,)."""
        bounds = np.zeros(self.counts.size + 1, dtype=np.int64)
        np.cumsum(self.counts * self.lengths - self._missing, out=bounds[1:])
        return bounds

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What is selected of each tensor that is hit."""
        return tuple(self._parts())

    @cached_property
    def coordinates(self) -> Indices:
        """The coordinates, sorted, shape (count,); not to be written to."""
        starts = np.repeat(self.layout.offsets, self.counts)
        starts += self.runs * np.repeat(self.lengths, self.counts)
        if self.count > starts.size:
            sizes = np.repeat(self.lengths, self.counts)
            hit = self.counts > 0
            sizes[np.cumsum(self.counts)[hit] - 1] -= self._missing[hit]
            starts = np.repeat(starts - np.cumsum(sizes) + sizes, sizes)
            starts += np.arange(starts.size)
        starts.flags.writeable = False
        return starts

    @cached_property
    def _missing(self) -> Indices:
        """By how much each tensor's last selected run is shorter than the others, shape (tensors,)."""
        missing = np.zeros_like(self.counts)
        hit = self.counts > 0
        last = self.runs[np.cumsum(self.counts)[hit] - 1]
        missing[hit] = np.maximum((last + 1) * self.lengths[hit] - self.layout.sizes[hit], 0)
        return missing

    def _parts(self) -> Iterator[Part]:
        hit = np.flatnonzero(self.counts)
        ends = np.cumsum(self.counts)[hit]
        first = 0
        columns = (hit, self.lengths[hit], ends, self._missing[hit], self.bounds[hit], self.bounds[hit + 1])
        for tensor, length, last, missing, begin, end in zip(
            *(each.tolist() for each in columns), strict=True
        ):
            yield Part(tensor, length, self.runs[first:last], last - first - bool(missing), begin, end)
            first = last
