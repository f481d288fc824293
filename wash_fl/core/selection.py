"""The coordinates of one exchange, tensor by tensor: what values are read from, and written to."""

from collections.abc import Sequence
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


class Selection:
    """The coordinates of one exchange.

    Parameters
    ----------
    layout : Layout
        What they index.
    lengths, counts : sequence of int
        Values of a run, and runs that are selected, per tensor.
    runs : ndarray of int64, shape (sum of counts,)
        Their numbers within their tensor, tensor after tensor, sorted within each.

    Attributes
    ----------
    layout : Layout
        What they index.
    parts : list of Part
        What is selected of each tensor that is hit.
    count : int
        Number of coordinates.
    """

    def __init__(self, layout: Layout, lengths: Sequence[int], counts: Sequence[int], runs: Indices) -> None:
        self.layout = layout
        self.parts: list[Part] = []
        first = begin = 0
        for tensor, (count, length, size) in enumerate(
            zip(counts, lengths, layout.sizes.tolist(), strict=True)
        ):
            if count:
                mine = runs[first : first + count]
                end, whole = begin + count * length, count
                if size % length and (missing := (int(mine[-1]) + 1) * length - size) > 0:
                    end, whole = end - missing, count - 1
                self.parts.append(Part(tensor, length, mine, whole, begin, end))
                first, begin = first + count, end
        self.count = begin

    @classmethod
    def of(cls, layout: Layout, coordinates: Indices) -> "Selection":
        """Return the selection of distinct sorted coordinates, one by one."""
        counts = np.diff(layout.boundaries(coordinates))
        places = coordinates - np.repeat(layout.offsets, counts)
        return cls(layout, [1] * len(counts), counts.tolist(), places)

    @cached_property
    def coordinates(self) -> Indices:
        """The coordinates, sorted, shape (count,); not to be written to."""
        coordinates = np.empty(self.count, dtype=np.int64)
        offsets = self.layout.offsets.tolist()
        for part in self.parts:
            np.add(part.elements(), offsets[part.tensor], out=coordinates[part.begin : part.end])
        coordinates.flags.writeable = False
        return coordinates
