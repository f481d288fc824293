"""FedAvg: every so many rounds all members go on from their mean, in 32 bits or fewer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import RunConfig
from wash_fl.core.codec import Values, encoded_size, rounded
from wash_fl.errors import ConfigError
from wash_fl.lab.compare.budget import Choice, Fit, Run, times
from wash_fl.lab.compare.cohort import Cohort
from wash_fl.lab.compare.methods.compressed import DTYPES, Compressed
from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.outer_step import OuterStep
from wash_fl.lab.compare.methods.rival import Often, Rival
from wash_fl.lab.compare.post import Post
from wash_fl.option import option
from wash_fl.tasks.task import Task

BITS_FOR: Final = ((1.0, 32), (0.25, 8), (0.125, 4), (0.0, 3))
"""From which part of FedAvg's bytes on how many bits are taken."""


@dataclass(frozen=True, kw_only=True)
class FedAvgKnobs(Often):
    """What FedAvg sends, how often, and what the server makes of it."""

    bits: int = option(
        32, "Bits of a value: 32, 8, 4, 3 or 2; below 32 differences travel, with error feedback"
    )
    outer_step: bool = option(False, "Nesterov's step on the mean difference: rate 0.7, momentum 0.5")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in DTYPES:
            raise ConfigError(
                f"bits = {self.bits} is not allowed: it is one of {', '.join(map(str, DTYPES))}."
            )


class FedAvg(Rival):
    """Members that all start each round from the mean of those that ended the one before.

    McMahan et al. 2017, algorithm 1, with equal weights, as all members take equally many steps. Who was
    away starts its next round from the mean, too, which it is sent then.
    """

    Knobs: ClassVar[type[Often]] = FedAvgKnobs

    def __init__(
        self, config: RunConfig, task: Task, dropout: float, post: Post, knobs: FedAvgKnobs | None = None
    ) -> None:
        super().__init__(config, task, dropout, post, knobs)
        self._mean: dict[str, NDArray[Any]] = {}
        self._waiting: set[int] = set()
        self._agreed = self.members[0].parameters()
        self._outer = _outer_step(knobs, self._agreed.size)

    @property
    def interval(self) -> int:
        """Once per round."""
        return self.config.training.local_steps

    @property
    def knob(self) -> str:
        """How often, in how many bits, with which outer step."""
        return f"{super().knob}, 32 bits{_said(self._outer)}"

    def begin_round(self) -> None:
        """Send the mean to those that are there."""
        self._give_to(self.here)

    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Take the mean of those that are there."""
        self._mean = self.mean(indices)
        if self._outer is not None:
            self._move(self._outer)
        self.count(indices, position)
        self._waiting = set(self.active())
        if position % self.config.training.local_steps:
            self._give_to(indices)

    def settle(self) -> None:
        """Leave all members at the mean, but for what they have trained since."""
        self._give_to(self.active())

    def _give_to(self, indices: Sequence[int]) -> None:
        for index in indices:
            if index in self._waiting:
                self._waiting.discard(index)
                self.give(index, self._mean)

    def _move(self, outer: OuterStep) -> None:
        """Put in place of the mean what the outer step makes of its difference to the last model."""
        layout = self.members[0].layout
        mean = np.concatenate([self._mean[tensor.name].reshape(-1) for tensor in layout.tensors])
        self._agreed = self._agreed + outer.step(mean - self._agreed)
        parts = np.split(self._agreed, layout.offsets[1:])
        for tensor, part in zip(layout.tensors, parts, strict=True):
            self._mean[tensor.name] = part.reshape(tensor.shape)
        self._mean = self.rules.spread(self._mean)


class LowBitFedAvg(Compressed):
    """FedAvg in few bits: differences to the last agreed model with error feedback, encoded as slices are."""

    Knobs: ClassVar[type[Often]] = FedAvgKnobs

    def __init__(self, config: RunConfig, task: Task, dropout: float, post: Post, knobs: FedAvgKnobs) -> None:
        self._bits = knobs.bits
        self._outer = knobs.outer_step
        super().__init__(config, task, dropout, post, knobs)

    @property
    def knob(self) -> str:
        """How often, in how many bits, with which outer step."""
        return f"{super().knob}, {self._bits} bits{_said(self._outer)}"

    def compress(self, values: Values) -> Values:
        """Return q(values)."""
        return rounded(values[np.newaxis], DTYPES[self._bits]).reshape(-1)

    @property
    def payload(self) -> int:
        """The bytes of all values, encoded."""
        return encoded_size(DTYPES[self._bits], 1, self.layout.size)

    def outer_step(self) -> OuterStep | None:
        """Nesterov's, if so wanted."""
        return OuterStep(self.layout.size) if self._outer else None


def fedavg(config: RunConfig, task: Task, dropout: float, post: Post, knobs: FedAvgKnobs, /) -> Cohort:
    """Return members that average as the knobs say."""
    kind = FedAvg if knobs.bits == 32 else LowBitFedAvg
    return kind(config, task, dropout, post, knobs)


def _outer_step(knobs: FedAvgKnobs | None, size: int) -> OuterStep | None:
    return OuterStep(size) if knobs is not None and knobs.outer_step else None


def _said(outer_step: object) -> str:
    return ", an outer step" if outer_step else ""


def _choose(run: Run, allowed: float) -> Choice:
    part = allowed / run.fedavg_bytes
    bits = next(bits for least, bits in BITS_FOR if part >= least)
    each = run.model_bytes if bits == 32 else run.packet(encoded_size(DTYPES[bits], 1, run.layout.size))
    choice = times(run, allowed, 2 * each)
    return Choice({**choice.changes, "bits": bits}, choice.bytes)


FIT: Final = Fit(
    "bits by the budget (" + ", ".join(f"{bits} from {least:g} on" for least, bits in BITS_FOR) + "), rounds "
    "between two averages by division",
    ("every-rounds", "bits"),
    _choose,
)

FEDAVG = Method("fedavg", "McMahan et al. 2017", fedavg, knobs=FedAvgKnobs, fit=FIT)
FEDAVG_OUTER_STEP = Method(
    "fedavg-outer-step",
    "Hsu et al. 2019 (FedAvgM), with Nesterov's step: rate 0.7, momentum 0.5",
    fedavg,
    {"outer-step": True},
    knobs=FedAvgKnobs,
    fit=FIT,
)
