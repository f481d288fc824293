"""The last steps of every run: from an averaged state dict to a model that is evaluated and ready."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.config import RunConfig
from wash_fl.consensus.evaluate import Ensemble, accuracy, logits_of
from wash_fl.core.identity import weights_sha256
from wash_fl.errors import DataError, reason_of
from wash_fl.member.state_dict import load_arrays
from wash_fl.member.training import LocalTraining, laid_out
from wash_fl.tasks.division import member_examples, tensors_of, test_examples
from wash_fl.tasks.models import build_model
from wash_fl.tasks.task import Task

Arrays = Mapping[str, NDArray[Any]]
"""A state dict in numpy."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of a run.

    Attributes
    ----------
    weights : dict of str to ndarray
        The averaged model's state dict.
    sha256 : str
        Hash of the weights, names and bits.
    members : dict of int to float
        Test accuracy of each member that was collected.
    ensemble : float
        Test accuracy of the mean of their logits.
    averaged : float
        Test accuracy of the averaged model with the members' averaged BatchNorm statistics.
    recalibrated : float
        The same after they were re-estimated; equal to ``averaged`` where they were not.
    """

    weights: dict[str, NDArray[Any]]
    sha256: str
    members: dict[int, float]
    ensemble: float
    averaged: float
    recalibrated: float

    @property
    def mean_member(self) -> float:
        """The mean of the members' accuracies."""
        return float(np.mean(list(self.members.values())))


class Evaluator:
    """Evaluates the members one at a time, then the averaged model, on the task's test data."""

    def __init__(self, task: Task, config: RunConfig) -> None:
        self.task = task
        self.config = config
        self.inputs, targets = tensors_of(test_examples(task, config))
        self.targets = targets.numpy()
        self._ensemble = Ensemble(self.inputs, self.targets)
        self._averaged = float("nan")

    def add_member(self, member: int, weights: Arrays) -> float:
        """Evaluate a member by its state dict; its weights are not kept."""
        return self._ensemble.add(member, self.model(weights))

    def add_average(self, weights: Arrays) -> float:
        """Evaluate the averaged model before its BatchNorm statistics are re-estimated."""
        self._averaged = accuracy(logits_of(self.model(weights), self.inputs), self.targets)
        return self._averaged

    def outcome(self, weights: Arrays) -> Outcome:
        """Evaluate the finished model and return everything."""
        recalibrated = accuracy(logits_of(self.model(weights), self.inputs), self.targets)
        return Outcome(
            weights=dict(weights),
            sha256=weights_sha256(weights),
            members={member: self._ensemble.members[member] for member in sorted(self._ensemble.members)},
            ensemble=self._ensemble.accuracy,
            averaged=self._averaged,
            recalibrated=recalibrated,
        )

    def model(self, weights: Arrays) -> nn.Module:
        """Return a model of the task with these weights, in evaluation mode.

        Raises
        ------
        DataError
            If they are of another model: the task's file was changed since the run, say.
        """
        model = build_model(self.config.task.model, self.task)
        # Members on a CPU re-estimate BatchNorm so, and it rounds otherwise.
        laid_out(model, self.config.training)
        try:
            load_arrays(model, weights)
        except RuntimeError as error:
            reason = reason_of(error, 200)
            raise DataError(
                f"the weights do not fit the model of the task {self.task.name!r} ({reason}): use the task "
                "as it was in the run."
            ) from error
        return model.eval()

    def server_calibration(self) -> Iterable[torch.Tensor]:
        """Yield the server's own calibration batches, from the task's undivided training data."""
        undivided = RunConfig.from_mapping(self.config.to_mapping() | {"division": "shared"})
        examples = member_examples(replace(self.task, member_data=None), undivided, 0)
        return LocalTraining(undivided, self.task, examples, SERVER).calibration()


SERVER = 2**32
"""Stands where a member's index would in the server's own draws; no member has it."""
