"""What the rivals have in common: whole models travel, every so many steps."""

from abc import abstractmethod
from collections.abc import Sequence

from wash_fl.config import RunConfig
from wash_fl.consensus.finish import Arrays
from wash_fl.lab.compare.cohort import Cohort
from wash_fl.lab.compare.post import Post
from wash_fl.member.state_dict import load_arrays
from wash_fl.tasks.task import Task


class Rival(Cohort):
    """Members that send whole models.

    Parameters
    ----------
    config, task, dropout
        As for :class:`~wash_fl.lab.compare.cohort.Cohort`.
    post : Post
        Is told of every model that would travel.
    """

    def __init__(self, config: RunConfig, task: Task, dropout: float, post: Post) -> None:
        super().__init__(config, task, dropout=dropout)
        self._post = post

    @property
    @abstractmethod
    def interval(self) -> int:
        """Steps between two communications; 0 for never."""

    @abstractmethod
    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Let these members communicate, after so many steps of the run."""

    def next_stop(self, position: int) -> int:
        """Return the step of the next communication."""
        if not self.interval:
            return position + self.config.training.local_steps
        return (position // self.interval + 1) * self.interval

    def after_step(self, position: int) -> None:
        """Communicate if it is time, and somebody is there."""
        if self.interval and position % self.interval == 0 and self.here:
            self.communicate(self.here, position)

    def give(self, index: int, arrays: Arrays) -> None:
        """Write a whole state dict into a member; its optimizer is not touched."""
        load_arrays(self.members[index].model, arrays)

    def count(self, indices: Sequence[int], position: int) -> None:
        """Count that each of these members sends its whole model, and gets one back."""
        for index in indices:
            arrays = self.weights(index)
            self._post.models(index, position, arrays, arrays)
