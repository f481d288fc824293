"""BatchNorm statistics of the averaged model out of what every member has estimated, whoever it is."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from wash_fl.consensus.batchnorm import BatchNormStatistics, pool
from wash_fl.consensus.screen import InMemory, strange

MOST_SHARE: Final = 1.0
"""No member counts for more than so many times the examples of the median one: what it claims is unproven.

Measured on the digits with means of zero, which are found out by now: who claims all examples there are costs
1 point where data is shared, and with 4 in place of 1 it costs 2.5; where each has its own classes 2 to 6, or
up to 23."""


def pooled(
    estimates: Mapping[int, BatchNormStatistics], *, factor: float, most_examples: int
) -> tuple[BatchNormStatistics, dict[int, str]]:
    """Return the statistics over the examples of all members, and who is left out, with the reason.

    Parameters
    ----------
    estimates : mapping of int to BatchNormStatistics
        By member; at least one.
    factor : float
        How far from the others' middle a member's may lie (:mod:`wash_fl.consensus.screen`); 0 allows any.
    most_examples : int
        How many examples a member estimates from at most; what it claims beyond is not believed.
    """
    same, left_out = _of_the_same_layers(estimates)
    buffers = {member: each.buffers() for member, each in same.items()}
    names = list(next(iter(buffers.values())))
    left_out |= strange(InMemory(buffers), names, factor, estimates=True)
    # In order of members, for float addition is not associative.
    used = [same[member] for member in sorted(same.keys() - left_out.keys())]
    counts = np.minimum([each.examples for each in used], most_examples)
    most = MOST_SHARE * float(np.median(counts))
    estimates_to_pool = [
        replace(each, examples=int(min(count, most))) for each, count in zip(used, counts, strict=True)
    ]
    return pool(estimates_to_pool), left_out


def _of_the_same_layers(
    estimates: Mapping[int, BatchNormStatistics],
) -> tuple[dict[int, BatchNormStatistics], dict[int, str]]:
    """Return the estimates of those layers of which most members have some, and whose are of others."""
    layers = {member: frozenset(estimates[member].mean) for member in sorted(estimates)}
    usual, _ = Counter(layers.values()).most_common(1)[0]
    same = {member: estimates[member] for member, own in layers.items() if own == usual}
    return same, dict.fromkeys(layers.keys() - same.keys(), "they are not of the others' layers")
