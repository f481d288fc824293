"""What the rivals have in common: whole models, or differences to one, travel every so many steps."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from wash_fl.config import RunConfig
from wash_fl.consensus.finish import Arrays
from wash_fl.lab.compare.cohort import Cohort
from wash_fl.lab.compare.post import Post
from wash_fl.member.state_dict import load_arrays
from wash_fl.option import Checked, option
from wash_fl.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Often(Checked):
    """How often members communicate."""

    every_rounds: float = option(
        0.0, "Rounds between two communications, such as 2 or 0.5; 0 takes the method's own rule", low=0
    )

    def steps(self, local_steps: int) -> float:
        """Return the steps between two communications, not rounded; 0 for the method's own rule.

        At most one communication follows a step.
        """
        return max(1.0, self.every_rounds * local_steps) if self.every_rounds else 0.0


class Rival(Cohort):
    """Members that send whole models.

    Parameters
    ----------
    config, task, dropout
        As for :class:`~wash_fl.lab.compare.cohort.Cohort`.
    post : Post
        Is told of every model that would travel.
    knobs : Checked, optional
        The method's own options; by default those of ``Knobs``.
    """

    Knobs: ClassVar[type[Often]] = Often

    def __init__(
        self, config: RunConfig, task: Task, dropout: float, post: Post, knobs: Checked | None = None
    ) -> None:
        super().__init__(config, task, dropout=dropout)
        self._post = post
        self._often = knobs if isinstance(knobs, Often) else self.Knobs()

    @property
    @abstractmethod
    def interval(self) -> int:
        """Steps between two communications by the method's own rule; 0 for never."""

    @abstractmethod
    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Let these members communicate, after so many steps of the run."""

    @property
    def times(self) -> int:
        """How often members communicate in the run, if they are there."""
        training = self.config.training
        return self._stops(training.rounds * training.local_steps) if self._length else 0

    @property
    def knob(self) -> str:
        """What a reader has to know of how often."""
        if not self.times:
            return ""
        rounds = self._length / self.config.training.local_steps
        how_often = "every round" if rounds == 1 else f"every {rounds:.3g} rounds"
        return f"{how_often} ({self.times} {'time' if self.times == 1 else 'times'})"

    def next_stop(self, position: int) -> int:
        """Return the step of the next communication."""
        if not self._length:
            return position + self.config.training.local_steps
        return self._stop(self._stops(position) + 1)

    def after_step(self, position: int) -> None:
        """Communicate if it is time, and somebody is there."""
        if self._length and self.here and position and self._stop(self._stops(position)) == position:
            self.communicate(self.here, position)

    def give(self, index: int, arrays: Arrays) -> None:
        """Write a whole state dict into a member; its optimizer is not touched."""
        load_arrays(self.members[index].model, arrays)

    def count(self, indices: Sequence[int], position: int) -> None:
        """Count that each of these members sends its whole model, and gets one back."""
        for index in indices:
            arrays = self.weights(index)
            self._post.models(index, position, arrays, arrays)

    @property
    def _length(self) -> float:
        """Steps between two communications, not rounded; 0 for never."""
        return self._often.steps(self.config.training.local_steps) or float(self.interval)

    def _stop(self, number: int) -> int:
        """Return after how many steps a communication is, by its number from 1."""
        return int(number * self._length + 0.5)

    def _stops(self, position: int) -> int:
        """Return how many communications are over after so many steps."""
        number = int((position + 1) / self._length) + 1
        while self._stop(number) > position:
            number -= 1
        return number
