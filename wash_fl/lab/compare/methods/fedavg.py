"""FedAvg: every round all members go on from their mean."""

from collections.abc import Sequence

from wash_fl.consensus.finish import Arrays
from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.rival import Rival


class FedAvg(Rival):
    """Members that all start each round from the mean of those that ended the one before.

    McMahan et al. 2017, algorithm 1, with equal weights, as all members take equally many steps. Who was
    away starts its next round from the mean, too, which it is sent then.
    """

    _mean: Arrays | None = None

    @property
    def interval(self) -> int:
        """Once per round."""
        return self.config.training.local_steps

    def begin_round(self) -> None:
        """Send the mean to those that are there."""
        if self._mean is not None:
            for index in self.here:
                self.give(index, self._mean)

    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Take the mean of those that are there."""
        self._mean = self.mean(indices)
        self.count(indices, position)

    def settle(self) -> None:
        """Leave all members at the mean."""
        if self._mean is not None:
            for index in self.active():
                self.give(index, self._mean)


FEDAVG = Method("fedavg", "McMahan et al. 2017", FedAvg)
