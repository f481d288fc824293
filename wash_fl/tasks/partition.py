"""Which examples each member gets: the draws of flwr-datasets' partitioners, so that old divisions stay.

The distributions are NumPy's own, which does not promise them for ever; a test holds these two against
flwr-datasets, bit for bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

ATTEMPTS = 11
"""So often a Dirichlet division is drawn: once, and ten times again while a member has no example."""


def iid(examples: int, members: int) -> list[Indices]:
    """Return contiguous parts of ``range(examples)``, one for each member, of nearly equal size.

    Parameters
    ----------
    examples, members : int
        How many there are; the first ``examples % members`` members get one example more.
    """
    return np.array_split(np.arange(examples), members)


def dirichlet(labels: NDArray[Any], members: int, alpha: float, seed: int) -> list[Indices] | None:
    """Return the indices of each member's examples, of each class a share drawn from Dir(alpha).

    Hsu et al., "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019, arXiv 1909.06335.

    Parameters
    ----------
    labels : ndarray of int, shape (examples,)
        The class of each example.
    members : int
        How many there are.
    alpha : float
        Concentration, above 0: the smaller, the fewer members share a class.
    seed : int
        Of NumPy's generator.

    Returns
    -------
    list of ndarray of int64, or None
        None if each of :data:`ATTEMPTS` draws left a member without an example.
    """
    generator = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(ATTEMPTS):
        pieces = []
        for own in classes:
            shares = np.cumsum(generator.dirichlet(np.full(members, alpha)))
            pieces.append(np.split(own, (shares * len(own)).astype(int)[:-1]))
        shards = [np.concatenate(each) for each in zip(*pieces, strict=True)]
        if min(map(len, shards)) > 0:
            for shard in shards:
                generator.shuffle(shard)
            return shards
    return None
