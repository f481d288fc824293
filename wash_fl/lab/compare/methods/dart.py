"""DART: members with augmentations of their own, now and then all replaced by their mean."""

from typing import Final

from wash_fl.lab.compare.budget import WHOLE
from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.papa import PapaAll
from wash_fl.lab.compare.methods.rival import Often

PARTS: Final = 10
"""The authors' examples average every 1,000 of 10,001 steps."""


class Dart(PapaAll):
    """Members that are replaced by their mean after every tenth of the run, and diverge again.

    Jain et al. 2023, "DART: Diversify-Aggregate-Repeat Training Improves Generalization of Neural Networks".
    Each member draws its own augmentation; the optimizers are not touched.
    """

    @property
    def interval(self) -> int:
        """A tenth of the run."""
        training = self.config.training
        return max(1, training.rounds * training.local_steps // PARTS)


DART = Method("dart", "Jain et al. 2023", Dart, {"augment": "grid"}, knobs=Often, fit=WHOLE)
