"""No communication: the floor for the averaged model and, for the ensemble, the ceiling."""

from collections.abc import Sequence

from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.rival import Rival


class Isolated(Rival):
    """Members that never hear of each other."""

    @property
    def interval(self) -> int:
        """Never."""
        return 0

    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Nothing."""


ISOLATED = Method("isolated", "no communication", Isolated)
GREEDY_SOUP = Method(
    "greedy-soup",
    "Wortsman et al. 2022: by accuracy on held-out examples, each member that makes the mean better",
    Isolated,
    product="soup",
)
