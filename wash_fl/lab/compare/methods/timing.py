"""The same slices in a part of the run only: early or late, larger by as much as they are fewer."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Final

from wash_fl.config import RunConfig
from wash_fl.lab.compare.budget import Fit
from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.wash import KEYS, choose_p, part_for
from wash_fl.lab.compare.post import Post
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.option import Checked, option
from wash_fl.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class PartKnobs(Checked):
    """In which part of the run slices are exchanged."""

    part: float = option(0.5, "Part of the run in which slices are exchanged", above=0, high=1)


class PartOfRun(Trainer):
    """Members that exchange slices in a part of the run, with p over that part: the bytes stay the same.

    Parameters
    ----------
    config, task, dropout, post
        As for :class:`~wash_fl.lab.compare.trainer.Trainer`.
    knobs : PartKnobs
        The part; it is larger if it would not hold the slices.
    """

    where: ClassVar[str]

    def __init__(self, config: RunConfig, task: Task, dropout: float, post: Post, knobs: PartKnobs) -> None:
        self.part = part_for(config.exchange.p, knobs.part)
        exchange = dataclasses.replace(config.exchange, p=config.exchange.p / self.part)
        super().__init__(dataclasses.replace(config, exchange=exchange), task, dropout=dropout, post=post)

    @property
    def knob(self) -> str:
        """Which part, and what is exchanged there."""
        return f"in the {self.where} {100 * self.part:.3g} % of the run, {super().knob}"

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.config.training.rounds * self.config.training.local_steps


class Early(PartOfRun):
    """Members that exchange slices in the first part of the run."""

    where: ClassVar[str] = "first"

    def is_time(self, position: int) -> bool:
        """Return whether members exchange after so many steps of the run."""
        return super().is_time(position) and position <= self.part * self.steps


class Late(PartOfRun):
    """Members that exchange slices in the last part of the run."""

    where: ClassVar[str] = "last"

    def is_time(self, position: int) -> bool:
        """Return whether members exchange after so many steps of the run."""
        return super().is_time(position) and position > (1.0 - self.part) * self.steps


FIT: Final = Fit(
    "p by bisection, at the run's dtype, exchanged in half of the run (or as much as the slices need)",
    (*KEYS, "part"),
    lambda run, allowed: choose_p(run, allowed, PartKnobs().part),
)

EARLY, LATE = (
    Method(
        name,
        f"slices, exchanged in the {make.where} half of the run only, twice as many",
        make,
        # A p that falls over the run is another way to be early.
        {"timing": "steady", "warmup": 0, "stop-after": 0},
        knobs=PartKnobs,
        fit=FIT,
    )
    for name, make in (("early", Early), ("late", Late))
)
