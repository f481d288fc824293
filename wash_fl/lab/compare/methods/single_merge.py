"""A single merge: members train alone, are once replaced by their mean late in the run, and go on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from wash_fl.lab.compare.budget import Choice, Fit, Run
from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.rival import Often, Rival
from wash_fl.option import option


@dataclass(frozen=True, kw_only=True)
class MergeKnobs(Often):
    """When members are merged."""

    merge_at: float = option(0.75, "Part of the run after which members are merged", above=0, high=1)


class SingleMerge(Rival):
    """Members that train alone but for one whole average.

    Zhu et al. 2025, "On the Surprising Effectiveness of a Single Global Merging in Decentralized Learning"
    (arXiv 2507.06542).
    """

    Knobs: ClassVar[type[Often]] = MergeKnobs

    @property
    def interval(self) -> int:
        """The step of the merge."""
        training = self.config.training
        return max(1, round(self._at * training.rounds * training.local_steps))

    @property
    def _at(self) -> float:
        return self._often.merge_at if isinstance(self._often, MergeKnobs) else MergeKnobs().merge_at

    @property
    def knob(self) -> str:
        """When."""
        return f"once, after {100 * self._at:.3g} % of the run"

    def next_stop(self, position: int) -> int:
        """Return the step of the merge; after it there is none."""
        training = self.config.training
        return self.interval if position < self.interval else training.rounds * training.local_steps + 1

    def after_step(self, position: int) -> None:
        """Merge those that are there, if it is time."""
        if position == self.interval and self.here:
            self.communicate(self.here, position)

    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Replace each member by the mean."""
        mean = self.mean(indices)
        self.count(indices, position)
        for index in indices:
            self.give(index, mean)


def _choose(run: Run, allowed: float) -> Choice:
    return Choice({}, 2 * run.model_bytes)


FIT: Final = Fit("one whole float32 model up and down, whatever its knob", (), _choose)

SINGLE_MERGE = Method(
    "single-merge",
    "Zhu et al. 2025: one whole average, after three quarters of the run",
    SingleMerge,
    knobs=MergeKnobs,
    fit=FIT,
)
