"""Examples that no member is trained on, to choose by: the same for every method."""

from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset

from wash_fl.core import philox
from wash_fl.tasks.division import select
from wash_fl.tasks.task import Examples, Task

PART: Final = 0.02
"""As in the code of PAPA, which chooses its soups by 2 % of the training examples."""


def hold_out(task: Task, seed: int, members: int) -> tuple[Task, Examples]:
    """Return the task without 2 % of its training examples, and these.

    Of a task whose data is divided already, each member gives 2 % of its own.
    """
    if task.member_data is None:
        kept, held = _split(task.train_data(), seed, 0)
        return replace(task, train_data=lambda: kept), held
    parts = [_split(task.member_data(member, members), seed, member) for member in range(members)]

    @lru_cache
    def own(member: int, count: int) -> Examples:
        assert count == members
        return parts[member][0]

    return replace(task, member_data=own), ConcatDataset([held for _, held in parts])


def _split(examples: Examples, seed: int, member: int) -> tuple[Examples, Examples]:
    size = len(examples)  # type: ignore[arg-type]
    held = max(1, round(PART * size))
    order: NDArray[np.int64] = philox.order(seed, "heldout", size, member=member)
    return select(examples, np.sort(order[held:])), select(examples, np.sort(order[:held]))
