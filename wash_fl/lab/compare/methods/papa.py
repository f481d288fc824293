"""PAPA: every few steps the members are pulled towards their mean; PAPA-all: now and then all the way."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.rival import Rival
from wash_fl.member.training import learning_rate

ALPHA: Final = 0.99
PULL_EVERY: Final = 10
EPOCHS: Final = 5


class Papa(Rival):
    """Members that move towards their mean every 10 steps.

    Jolicoeur-Martineau et al. 2024, "PopulAtion Parameter Averaging (PAPA)", and their code: ``alpha`` is
    0.99, ``1 - alpha`` falls with the learning rate, BatchNorm's buffers are pulled like parameters, and the
    optimizers are not touched.
    """

    @property
    def interval(self) -> int:
        """Every 10 steps."""
        return PULL_EVERY

    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Pull each member towards the mean."""
        training = self.config.training
        rate = learning_rate(training, position / (training.rounds * training.local_steps))
        pull = (1.0 - ALPHA) * rate / training.learning_rate
        mean = self.mean(indices)
        self.count(indices, position)
        for index in indices:
            own = self.weights(index)
            self.give(
                index,
                {
                    name: (own[name] + np.float32(pull) * (each - own[name])).astype(each.dtype)
                    if self.rules.has_mean(name)
                    else own[name]
                    for name, each in mean.items()
                },
            )


class PapaAll(Rival):
    """Members that are all replaced by their mean every 5 epochs: the same paper's PAPA-all.

    In a run of fewer than 10 epochs, once in the middle.
    """

    @property
    def interval(self) -> int:
        """Steps of 5 epochs, of members with the mean number of examples."""
        training = self.config.training
        examples = np.mean([len(each.examples) for each in self._training])  # type: ignore[arg-type]
        half = training.rounds * training.local_steps // 2
        return max(1, min(half, round(EPOCHS * float(examples) / training.batch_size)))

    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Replace each member by the mean."""
        mean = self.mean(indices)
        self.count(indices, position)
        for index in indices:
            self.give(index, mean)


PAPA = Method("papa", "Jolicoeur-Martineau et al. 2024", Papa)
PAPA_ALL = Method("papa-all", "the same, PAPA-all", PapaAll)
