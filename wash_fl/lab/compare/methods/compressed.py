"""Members that all go on from a model which only compressed differences change."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Final

from wash_fl.config import RunConfig
from wash_fl.core.codec import Values, encoded_size
from wash_fl.core.dtypes import FLOAT32
from wash_fl.lab.compare.methods.feedback import Agreed
from wash_fl.lab.compare.methods.outer_step import OuterStep
from wash_fl.lab.compare.methods.rival import Rival
from wash_fl.lab.compare.post import Post
from wash_fl.option import Checked
from wash_fl.tasks.task import Task

DTYPES: Final = {32: FLOAT32, 8: "int8", 4: "int4", 3: "int3", 2: "int2"}
"""The encoding of each number of bits."""


class Compressed(Rival):
    """Members that send differences to the last agreed model, and all go on from the next.

    Only what is trained travels: BatchNorm's statistics stay with each member until the end, as in WASH. Who
    was away is sent the differences it missed, or all values, whichever is less.

    Parameters
    ----------
    config, task, dropout, post, knobs
        As for :class:`~wash_fl.lab.compare.methods.rival.Rival`.
    """

    def __init__(
        self, config: RunConfig, task: Task, dropout: float, post: Post, knobs: Checked | None = None
    ) -> None:
        super().__init__(config, task, dropout, post, knobs)
        self.layout = self.members[0].layout
        self.agreed = Agreed(
            self.members[0].parameters(),
            len(self.members),
            self.compress,
            decay=self.decay,
            outer_step=self.outer_step(),
        )
        self._missed: Counter[int] = Counter()

    @abstractmethod
    def compress(self, values: Values) -> Values:
        """Return what arrives of a difference, shape (layout.size,)."""

    @property
    @abstractmethod
    def payload(self) -> int:
        """The bytes of a difference, without the packet's frame."""

    @property
    def decay(self) -> float:
        """What members multiply by what they kept."""
        return 1.0

    def outer_step(self) -> OuterStep | None:
        """Return what the server does with a mean difference; None for nothing."""
        return None

    @property
    def interval(self) -> int:
        """Once per round."""
        return self.config.training.local_steps

    def begin_round(self) -> None:
        """Bring those that were away up to the agreed model."""
        for index in self.here:
            if missed := self._missed.pop(index, 0):
                size = min(missed * self.payload, encoded_size(FLOAT32, 1, self.layout.size))
                self._post.payload(index, 0, self.layout, down=size)
                self.members[index].load_parameters(self.agreed.model)

    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Agree on the next model, and go on from it."""
        self.agreed.average({index: self.members[index].parameters() for index in indices})
        for index in indices:
            self._post.payload(index, position, self.layout, up=self.payload, down=self.payload)
            self.members[index].load_parameters(self.agreed.model)
        self._missed.update(index for index in self.active() if index not in indices)

    def settle(self) -> None:
        """Leave all members at the agreed model, but for what they have trained since."""
        for index in self.active():
            if self._missed.pop(index, 0):
                self.members[index].load_parameters(self.agreed.model)
