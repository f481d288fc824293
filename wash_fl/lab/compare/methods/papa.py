"""PAPA: every few steps the members are pulled towards their mean; PAPA-all: now and then all the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from wash_fl.lab.compare.budget import WHOLE
from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.rival import Often, Rival
from wash_fl.member.training import learning_rate
from wash_fl.option import option

ALPHA: Final = 0.99
PULL_EVERY: Final = 10
EPOCHS: Final = 5


@dataclass(frozen=True, kw_only=True)
class PapaKnobs(Often):
    """How often members are pulled, and how far."""

    papa_alpha: float = option(
        ALPHA,
        "What a pull leaves of a member's distance to the mean, at the first learning rate",
        low=0,
        high=1,
    )


class Papa(Rival):
    """Members that move towards their mean every 10 steps.

    Jolicoeur-Martineau et al. 2024, "PopulAtion Parameter Averaging (PAPA)", and their code: ``alpha`` is
    0.99, ``1 - alpha`` falls with the learning rate, BatchNorm's buffers are pulled like parameters, and the
    optimizers are not touched. Their 0.99 is for runs of very many pulls: a shorter run needs a smaller one.
    """

    Knobs: ClassVar[type[Often]] = PapaKnobs

    @property
    def interval(self) -> int:
        """Every 10 steps."""
        return PULL_EVERY

    @property
    def alpha(self) -> float:
        """What a pull leaves of a member's distance to the mean, at the first learning rate."""
        return self._often.papa_alpha if isinstance(self._often, PapaKnobs) else ALPHA

    @property
    def knob(self) -> str:
        """The constant and the number of pulls."""
        return f"alpha {self.alpha:g}, {self.times} {'pull' if self.times == 1 else 'pulls'}"

    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Pull each member towards the mean."""
        training = self.config.training
        rate = learning_rate(training, position / (training.rounds * training.local_steps))
        pull = (1.0 - self.alpha) * rate / training.learning_rate
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


PAPA = Method("papa", "Jolicoeur-Martineau et al. 2024: alpha 0.99", Papa, knobs=PapaKnobs, fit=WHOLE)
PAPA_HARDER = Method(
    "papa-0.9",
    "the same with ten times the pull: alpha 0.9",
    Papa,
    {"papa-alpha": 0.9},
    knobs=PapaKnobs,
    fit=WHOLE,
)
PAPA_ALL = Method("papa-all", "the same, PAPA-all", PapaAll, knobs=Often, fit=WHOLE)
