"""The outer step: a server's optimizer, for which the members' mean difference is a gradient."""

from typing import Final

import numpy as np

from wash_fl.core.codec import Values

RATE: Final = np.float32(0.7)
MOMENTUM: Final = np.float32(0.5)


class OuterStep:
    """Nesterov's momentum on the mean difference.

    Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification" (FedAvgM), with Nesterov's step as in Douillard et al. 2023 (DiLoCo): of a difference d,
    ``m = 0.5 m + d``, and the step is ``0.7 (d + 0.5 m)``.

    Parameters
    ----------
    size : int
        How many values there are.
    """

    def __init__(self, size: int) -> None:
        self._momentum = np.zeros(size, dtype=np.float32)

    def step(self, difference: Values) -> Values:
        """Return the step for a mean difference, shape (size,), and remember it in the momentum."""
        self._momentum = MOMENTUM * self._momentum + difference
        return RATE * (difference + MOMENTUM * self._momentum)
