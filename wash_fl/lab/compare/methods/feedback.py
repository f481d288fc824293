"""Error feedback: what does not fit into a message stays with its sender, and is in its next one.

Seide et al. 2014, "1-Bit Stochastic Gradient Descent"; in both directions, as here, Tang et al. 2019,
"DoubleSqueeze".
"""

from collections.abc import Callable, Mapping

import numpy as np

from wash_fl.core.codec import Values
from wash_fl.lab.compare.methods.outer_step import OuterStep

Compress = Callable[[Values], Values]
"""Returns what arrives of values, shape (size,)."""


class Sender:
    """Sends differences, and keeps what is left out of each.

    Parameters
    ----------
    size : int
        Values of a difference.
    compress : callable
        What arrives of them.
    decay : float
        What is kept is multiplied by it before the next difference is added.

    Attributes
    ----------
    kept : ndarray of float32, shape (size,)
        What was left out so far.
    """

    def __init__(self, size: int, compress: Compress, decay: float = 1.0) -> None:
        self.kept = np.zeros(size, dtype=np.float32)
        self._compress = compress
        self._decay = np.float32(decay)

    def send(self, difference: Values) -> Values:
        """Return what arrives of a difference and of what was kept."""
        whole = self._decay * self.kept + difference
        sent = self._compress(whole)
        self.kept = whole - sent
        return sent


class Agreed:
    """The model that the server and all members have in common, which only differences change.

    A member sends its difference to it, the server the mean of these, each in as few bytes as ``compress``
    leaves, with error feedback on either side.

    Parameters
    ----------
    model : ndarray of float32, shape (size,)
        Where all begin.
    members : int
        How many there are.
    compress : callable
        What arrives of a difference.
    decay : float
        Of what members keep; the server keeps all.
    outer_step : OuterStep, optional
        What the server does with a mean difference before it sends it.

    Attributes
    ----------
    model : ndarray of float32, shape (size,)
        The model as it is.
    members : list of Sender
        By index.
    server : Sender
        The other direction's.
    """

    def __init__(
        self,
        model: Values,
        members: int,
        compress: Compress,
        *,
        decay: float = 1.0,
        outer_step: OuterStep | None = None,
    ) -> None:
        self.model = model
        self.members = [Sender(model.size, compress, decay) for _ in range(members)]
        self.server = Sender(model.size, compress)
        self._outer_step = outer_step

    def average(self, values: Mapping[int, Values]) -> None:
        """Move the model by the mean difference of some members, by index."""
        arrived = [self.members[index].send(each - self.model) for index, each in values.items()]
        mean: Values = np.asarray(np.mean(arrived, axis=0, dtype=np.float64), dtype=np.float32)
        if self._outer_step is not None:
            mean = self._outer_step.step(mean)
        self.model = self.model + self.server.send(mean)
