"""The heterogeneous setting: each member trains under its own augmentation and regularisation.

The grid is that of PAPA (Jolicoeur-Martineau et al., 2023, arXiv 2304.03094), whose protocol WASH follows.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import nn

from wash_fl.core import philox
from wash_fl.errors import ConfigError
from wash_fl.tasks.task import import_extra

MIXUP = (0.0, 0.5, 1.0)
LABEL_SMOOTHING = (0.0, 0.05, 0.1)
CUTMIX = (0.0, 0.5, 1.0)
ERASING = (0.0, 0.15, 0.35)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How one member's batches are augmented; all zeros changes nothing.

    Attributes
    ----------
    mixup, cutmix : float
        Alpha of the Beta distribution of the mixing ratio; 0 is off. Where both are on, each batch takes
        one of them, with equal chance.
    label_smoothing : float
        Share of each target that is spread evenly over all classes.
    erasing : float
        Probability, per image, that a rectangle of 2 to 33 % of it is set to 0.

    Examples
    --------
    >>> Augmentation.draw(seed=0, member=1) == Augmentation.draw(seed=0, member=1)
    True
    """

    mixup: float = 0.0
    label_smoothing: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0

    @classmethod
    def draw(cls, seed: int, member: int) -> "Augmentation":
        """Return the combination of one member, a function of the run seed.

        As in PAPA's code, members go through the 81 combinations in a random order, so that no two of
        up to 81 members have the same.
        """
        grid = list(itertools.product(MIXUP, LABEL_SMOOTHING, CUTMIX, ERASING))
        mixup, label_smoothing, cutmix, erasing = grid[
            philox.order(seed, "augment", len(grid))[member % len(grid)]
        ]
        return cls(mixup=mixup, label_smoothing=label_smoothing, cutmix=cutmix, erasing=erasing)

    def apply(
        self, inputs: torch.Tensor, targets: torch.Tensor, classes: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment one batch; every draw is from PyTorch's global CPU generator, whatever the device.

        Parameters
        ----------
        inputs : Tensor, float, shape (batch, channels, height, width)
            Left as it is. Images are paired with the one before them, so the batch must be shuffled.
        targets : Tensor, int64, shape (batch,)
            Class indices.
        classes : int
            How many classes there are.

        Returns
        -------
        inputs : Tensor, of the same shape and dtype
        soft_targets : Tensor, float, shape (batch, classes)
            Class probabilities: each row sums to 1.

        Raises
        ------
        ConfigError
            If the inputs are not images, or torchvision is not installed.
        """
        if inputs.ndim != 4:
            raise ConfigError(
                f"augment = 'grid' needs inputs of shape (channels, height, width), and these are "
                f"{tuple(inputs.shape[1:])}: use augment = 'none'."
            )
        transforms = import_extra("torchvision.transforms.v2", "augment = 'grid'", ConfigError)
        hard = nn.functional.one_hot(targets, classes).to(inputs.dtype)
        soft = hard * (1 - self.label_smoothing) + self.label_smoothing / classes
        if self.erasing:
            erase = transforms.RandomErasing(self.erasing)
            inputs = torch.stack([erase(image) for image in inputs])
        if self.cutmix and (not self.mixup or torch.rand(()) < 0.5):
            inputs, soft = transforms.CutMix(alpha=self.cutmix)(inputs, soft)
        elif self.mixup:
            inputs, soft = transforms.MixUp(alpha=self.mixup)(inputs, soft)
        return inputs, soft
