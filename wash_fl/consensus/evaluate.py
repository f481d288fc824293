"""How good the members are, each, together, and averaged."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

EVALUATION_BATCH = 64
"""Small enough for a layer's activations to stay in a core's cache; the answers do not depend on it."""


def logits_of(model: nn.Module, inputs: torch.Tensor) -> NDArray[np.float32]:
    """Return a model's outputs in evaluation mode, shape (n, classes); its mode is left as it was."""
    was_training = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        pieces = [model(batch.to(device)).float().cpu() for batch in torch.split(inputs, EVALUATION_BATCH)]
    for module, training in was_training.items():
        module.training = training
    return torch.cat(pieces).numpy()


def accuracy(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Return the fraction of rows whose largest logit is the target's: 0 to 1."""
    return float((logits.argmax(axis=1) == targets).mean())


class MeanOfLogits(nn.Module):
    """An ensemble as one model, whose outputs are the mean of its members'.

    Parameters
    ----------
    members : sequence of Module
        At least one; their outputs have the same shape.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs of shape (batch, ...) to the mean logits, of shape (batch, classes)."""
        return torch.stack([member(inputs) for member in self.members]).mean(0)


@dataclass
class Ensemble:
    """Evaluates members one at a time, and the mean of their logits.

    Parameters
    ----------
    inputs : Tensor, shape (n, ...)
        Test inputs.
    targets : ndarray of int64, shape (n,)
        Their classes.
    """

    inputs: torch.Tensor
    targets: NDArray[np.int64]
    members: dict[int, float] = field(default_factory=dict)
    _logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def add(self, member: int, model: nn.Module) -> float:
        """Evaluate one member and return its accuracy."""
        self._logits[member] = logits_of(model, self.inputs)
        self.members[member] = accuracy(self._logits[member], self.targets)
        return self.members[member]

    @property
    def accuracy(self) -> float:
        """The accuracy of the mean of the members' logits; in the order of members, so that it repeats."""
        total = np.zeros_like(next(iter(self._logits.values())), dtype=np.float64)
        for member in sorted(self._logits):
            total += self._logits[member]
        return accuracy(total.astype(np.float32), self.targets)
