"""Top-k: of each chunk of the difference only the largest values travel, in 2 bits, with error feedback."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final

import numpy as np

from wash_fl.config import RunConfig
from wash_fl.core.codec import Values
from wash_fl.core.layout import Layout
from wash_fl.lab.compare.budget import Choice, Fit, Run, nearest
from wash_fl.lab.compare.methods.compressed import Compressed
from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.rival import Often
from wash_fl.lab.compare.post import Post
from wash_fl.option import option
from wash_fl.tasks.task import Task

CHUNK: Final = 4096
"""Values of a tensor of which the largest are taken together; the last chunk of a tensor may have fewer."""

DECAY: Final = 0.95
"""What members kept is multiplied by it. In the paper this takes the place of an outer momentum."""

BITS: Final = 2
"""Of a value: its sign, and which of its chunk's two magnitudes it has."""

MAGNITUDES: Final = 2 * np.dtype(np.float16).itemsize
"""Bytes of a chunk's two magnitudes."""

REFINEMENTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class TopKKnobs(Often):
    """How many values travel, and how often."""

    top: float = option(0.05, "Part of each chunk that travels; at least one value", above=0, high=1)


class LargestOfChunks:
    """Takes the largest values of each chunk, in 2 bits each.

    Parameters
    ----------
    layout : Layout
        Of the values; a chunk is within one tensor.
    top : float
        The part of a chunk that is taken.
    """

    def __init__(self, layout: Layout, top: float) -> None:
        self._chunks = list(_chunks(layout))
        self._counts = [max(1, int(top * length + 0.5)) for _, length in self._chunks]

    def __call__(self, values: Values) -> Values:
        """Return what arrives of values, shape (size,): zero but for the largest of each chunk."""
        arrived = np.zeros_like(values)
        for (start, length), count in zip(self._chunks, self._counts, strict=True):
            chunk = values[start : start + length]
            # Stable, so that of equal values the first is taken, on every machine.
            largest = np.argsort(-np.abs(chunk), kind="stable")[:count]
            arrived[start + largest] = two_bits(chunk[largest])
        return arrived

    @cached_property
    def payload(self) -> int:
        """The bytes of the values, of each chunk's magnitudes, and of where the values are.

        A place takes as many bits as the chunk's length needs (12 of 4096), or all places of a chunk one bit
        for each of its values, if that is less.
        """
        places = sum(
            min(count * max(1, (length - 1).bit_length()), length)
            for (_, length), count in zip(self._chunks, self._counts, strict=True)
        )
        return MAGNITUDES * len(self._chunks) + -(-(BITS * sum(self._counts) + places) // 8)


def two_bits(values: Values) -> Values:
    """Return values as one of two magnitudes, each with its own sign, shape (count,).

    The magnitudes are the means of the smaller and of the larger values, as binary16. Where one ends and the
    other begins is refined a few times, each time to the middle between them (Lloyd 1982).
    """
    magnitudes = np.abs(values).astype(np.float64)
    border = magnitudes.mean()
    for _ in range(REFINEMENTS):
        large = magnitudes > border
        high = magnitudes[large].mean() if large.any() else border
        low = magnitudes[~large].mean()
        border = (low + high) / 2
    limit = float(np.finfo(np.float16).max)
    levels = np.clip([low, high], 0.0, limit).astype(np.float16).astype(np.float32)
    signed: Values = np.copysign(np.where(large, levels[1], levels[0]), values)
    return signed


class TopK(Compressed):
    """Members that send the largest values of their differences, as in SparseLoCo.

    Sarfi et al. 2025, "Communication Efficient LLM Pre-training with SparseLoCo" (arXiv 2508.15706): of each
    chunk the k values largest in magnitude, in 2 bits, and error feedback whose decay takes the place of an
    outer momentum. Members there send to each other; here the server's answer is compressed like what members
    send, with what it leaves out kept, too.
    """

    Knobs: ClassVar[type[Often]] = TopKKnobs

    def __init__(self, config: RunConfig, task: Task, dropout: float, post: Post, knobs: TopKKnobs) -> None:
        self._top = knobs
        super().__init__(config, task, dropout, post, knobs)

    @cached_property
    def _largest(self) -> LargestOfChunks:
        return LargestOfChunks(self.layout, self._top.top)

    @property
    def knob(self) -> str:
        """How often, how many values, in how many bits."""
        return f"{super().knob}, the largest {100 * self._top.top:.3g} %, {BITS} bits"

    def compress(self, values: Values) -> Values:
        """Return the largest values of each chunk, in few bits."""
        return self._largest(values)

    @property
    def payload(self) -> int:
        """The bytes of these values and of where they are."""
        return self._largest.payload

    @property
    def decay(self) -> float:
        """Below 1: it takes the place of an outer momentum."""
        return DECAY


def _chunks(layout: Layout) -> Iterator[tuple[int, int]]:
    """Yield the first coordinate and the length of each chunk."""
    for offset, size in zip(layout.offsets.tolist(), layout.sizes.tolist(), strict=True):
        for start in range(0, size, CHUNK):
            yield offset + start, min(CHUNK, size - start)


def _choose(run: Run, allowed: float) -> Choice:
    def spend(top: float) -> float:
        payload = LargestOfChunks(run.layout, top).payload
        return 2.0 * run.rounds * run.packet(payload)

    top, spent = nearest(allowed, 1.0, spend)
    return Choice({"top": top}, spent)


FIT: Final = Fit(
    f"in every round, in {BITS} bits; the part of the values by bisection",
    ("top", "every-rounds"),
    _choose,
)

TOP_K = Method(
    "top-k",
    "Sarfi et al. 2025 (SparseLoCo): the largest of each chunk, 2 bits, error feedback both ways",
    TopK,
    knobs=TopKKnobs,
    fit=FIT,
)
