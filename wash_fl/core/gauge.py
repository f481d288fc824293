"""How far apart the members are, estimated from the slices that pass through the escrow: it costs no byte."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.layout import Layout

SEEN: Final = 32
"""How many members are looked at: more would cost much and say little more."""


@dataclass(frozen=True)
class Gauge:
    """Estimated distance between two members, and the size of what they hold.

    Attributes
    ----------
    squared_distance : dict of str to float
        Per tensor, the mean over pairs of members of the squared Euclidean distance; an unbiased
        estimate from the tensor's sampled coordinates. Tensors without any are left out.
    squared_norm : dict of str to float
        Per tensor, the squared Euclidean norm of the members' mean, from the same coordinates.
    """

    squared_distance: dict[str, float]
    squared_norm: dict[str, float]

    @property
    def distance(self) -> float:
        """Root mean squared distance between two members, over the tensors that were sampled."""
        return math.sqrt(sum(self.squared_distance.values()))

    @property
    def relative(self) -> float:
        """The distance over the norm of the members' mean: near 0 is one model, 1 is far apart."""
        norm = sum(self.squared_norm.values())
        return self.distance / math.sqrt(norm) if norm > 0 else 0.0

    def by_tensor(self) -> dict[str, float]:
        """Return the distance per tensor, in depth order."""
        return {name: math.sqrt(value) for name, value in self.squared_distance.items()}


def measure(layout: Layout, coordinates: NDArray[np.int64], offers: Sequence[NDArray[np.float32]]) -> Gauge:
    """Estimate the distance between members from their values at an exchange's coordinates.

    For N members the expected squared distance of two is twice the unbiased variance between them,
    summed over all coordinates; every coordinate of a tensor is sampled with equal probability, so the
    mean over the sampled ones times the tensor's size is unbiased. Of more than ``SEEN`` members so many are
    looked at, evenly spread; the mean, and with it the norm, is then theirs.

    Parameters
    ----------
    layout : Layout
        What the coordinates index.
    coordinates : ndarray of int64, shape (count,)
        Sorted.
    offers : sequence of ndarray of float32, each of shape (slots, count)
        At least two; the first slot is looked at.
    """
    members = min(len(offers), SEEN)
    offers = [offers[len(offers) * number // members] for number in range(members)]
    mean = np.zeros(coordinates.size)
    for offer in offers:
        mean += offer[0]
    mean /= members
    variance = np.zeros(coordinates.size)
    for offer in offers:
        variance += np.square(offer[0] - mean)
    variance /= members - 1

    bounds = layout.boundaries(coordinates).tolist()
    squared_distance: dict[str, float] = {}
    squared_norm: dict[str, float] = {}
    for tensor, begin, end in zip(layout.tensors, bounds[:-1], bounds[1:], strict=True):
        if begin < end:
            squared_distance[tensor.name] = 2.0 * tensor.size * float(variance[begin:end].mean())
            squared_norm[tensor.name] = tensor.size * float(np.square(mean[begin:end]).mean())
    return Gauge(squared_distance, squared_norm)
