"""What is checked: a task with a run's options; its data and its initial model, each made once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.checks.finding import Finding
from wash_fl.checks.fingerprint import Fingerprint
from wash_fl.checks.look import SECONDS, Look, look
from wash_fl.checks.twin import Twin
from wash_fl.config import RunConfig
from wash_fl.export.metadata import ModelCard
from wash_fl.export.parity import PARITY_EXAMPLES
from wash_fl.export.reference import answers
from wash_fl.member.training import laid_out
from wash_fl.runs.exporting import card_of
from wash_fl.tasks.division import checked, fetch, member_examples, test_examples
from wash_fl.tasks.models import initial_model
from wash_fl.tasks.task import Examples, Task, load_task

ANSWERED: Final = 16
"""Test inputs that each process answers."""

Outputs = NDArray[np.float32]

Check = Callable[["Subject"], Iterator[Finding]]
"""Yields what it found, or raises what is wrong."""


@dataclass
class Subject:
    """A task with a run's options.

    As a context it runs a process that makes the same of the task anew: see :mod:`wash_fl.checks.twin`.

    Parameters
    ----------
    config : RunConfig
        The run's options.
    exports : bool
        Whether the run ends with an export, so that the packages for it must be there.
    int8 : bool
        Whether that is to be in int8, too.
    """

    config: RunConfig
    exports: bool = True
    int8: bool = False
    _twin: Twin | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self._twin = Twin(self.config, self.inputs[:ANSWERED], self.targets[:ANSWERED])
        return self

    def __exit__(self, *error: object) -> None:
        if self._twin is not None:
            self._twin.end()

    @cached_property
    def task(self) -> Task:
        """The task."""
        return load_task(self.config.task.task)

    @cached_property
    def train(self) -> Look:
        """The training data."""
        return look(
            checked(self.task.train_data(), self.task, "train_data()"), self._of("train_data()"), seeded=True
        )

    @cached_property
    def test(self) -> Look:
        """The test data."""
        return look(
            checked(self.task.test_data(), self.task, "test_data()"), self._of("test_data()"), seeded=False
        )

    @cached_property
    def members(self) -> list[Look]:
        """The data of each member, where the task divides it itself."""
        return member_looks(self.task, self.config)

    @property
    def learned(self) -> list[Look]:
        """What is trained on, by some member or other."""
        return self.members or [self.train]

    @cached_property
    def shards(self) -> list[Examples]:
        """What each member trains on."""
        return [member_examples(self.task, self.config, each) for each in range(self.config.training.members)]

    @cached_property
    def examples(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The first test inputs and their labels, as many as an export is checked on."""
        examples = test_examples(self.task, self.config)
        return fetch(examples, range(min(PARITY_EXAMPLES, len(examples))))  # type: ignore[arg-type]

    @property
    def inputs(self) -> torch.Tensor:
        """The inputs of these examples."""
        return self.examples[0]

    @property
    def targets(self) -> torch.Tensor:
        """The labels of these examples."""
        return self.examples[1]

    @cached_property
    def model(self) -> nn.Module:
        """The initial model of the run, in evaluation mode."""
        return self.new_model().eval()

    def new_model(self) -> nn.Module:
        """Return the initial model once more."""
        model = initial_model(self.config.task.model, self.task, self.config.training.seed)
        return laid_out(model, self.config.training)

    @cached_property
    def card(self) -> ModelCard:
        """What a file of the model would say about itself."""
        return card_of(self.task)

    @cached_property
    def answers(self) -> Outputs:
        """What the model answers to the first of the test inputs.

        Raises
        ------
        ExportError
            If it cannot, or not with a finite float32 number for each class.
        """
        return answers(self.model, self.inputs[:ANSWERED], self.card)

    @property
    def twin(self) -> Fingerprint:
        """What the other process made of the task."""
        assert self._twin is not None
        return self._twin.fingerprint()

    def _of(self, source: str) -> str:
        return f"{source} of the task {self.task.name!r}"


def member_looks(task: Task, config: RunConfig, *, backwards: bool = False) -> list[Look]:
    """Return what each member has of a task that divides its data itself; of another task, nothing.

    Members are asked for ``backwards`` in the other process: no client asks for all of them in their order.
    """
    if task.member_data is None:
        return []
    members = config.training.members
    looks: dict[int, Look] = {}
    for member in sorted(range(members), reverse=backwards):
        source = f"member_data({member}, {members})"
        dataset = checked(task.member_data(member, members), task, source)
        what = f"{source} of the task {task.name!r}"
        looks[member] = look(dataset, what, seconds=SECONDS / members, seeded=True)
    return [looks[member] for member in sorted(looks)]
