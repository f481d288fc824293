"""Our divisions are those of flwr-datasets, bit for bit: a fleet's old runs keep who has which examples."""

import warnings
from typing import Any

import numpy as np
import pytest

from wash_fl.tasks import partition

LABELS = {
    "even": np.arange(500) % 10,
    "uneven, with gaps": np.repeat([0, 1, 2, 7], [300, 90, 9, 1]),
    "one class": np.zeros(60, dtype=np.int64),
    "tiny": np.arange(7) % 3,
    "many classes": np.random.default_rng(0).integers(0, 100, 2000),
    "negative": np.random.default_rng(1).integers(-2, 3, 100),
}
MEMBERS = (2, 3, 7, 50)
LAST_DRAW = 5
"""A seed whose first draw without an empty shard is the eleventh."""


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Return a function that asks a partitioner of flwr-datasets for all shards; None if it refuses."""
    # Some versions of what it needs do not go with each other, and say so when they are imported.
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    partitioners = pytest.importorskip("flwr_datasets.partitioner", exc_type=ImportError)

    def shards(kind: str, labels: np.ndarray, members: int, **options: Any) -> list[list[int]] | None:
        partitioner = getattr(partitioners, kind)(members, **options)
        partitioner.dataset = datasets.Dataset.from_dict({"label": labels, "index": np.arange(len(labels))})
        try:
            with warnings.catch_warnings(action="ignore"):
                return [list(partitioner.load_partition(member)["index"]) for member in range(members)]
        except ValueError:
            return None

    return shards


def as_lists(shards: list[np.ndarray] | None) -> list[list[int]] | None:
    if shards is None:
        return None
    assert all(each.dtype == np.int64 for each in shards)
    return [each.tolist() for each in shards]


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_equal_shards_are_those_of_flwr_datasets(theirs, labels, members):
    if members <= len(labels):
        assert as_lists(partition.iid(len(labels), members)) == theirs("IidPartitioner", labels, members)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.5, 1.0, 100.0])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_skewed_shards_are_those_of_flwr_datasets_and_so_are_the_refusals(theirs, labels, alpha):
    for members in MEMBERS:
        if members <= len(labels):
            for seed in (0, 2**32 - 1):
                options = {"partition_by": "label", "alpha": alpha, "min_partition_size": 1, "seed": seed}
                ours = as_lists(partition.dirichlet(labels, members, alpha, seed))
                assert ours == theirs("DirichletPartitioner", labels, members, **options), (members, seed)


def test_the_last_draw_counts(theirs):
    labels, options = np.zeros(12, dtype=np.int64), {"partition_by": "label", "min_partition_size": 1}
    shards = as_lists(partition.dirichlet(labels, 6, 0.5, LAST_DRAW))
    assert shards == theirs("DirichletPartitioner", labels, 6, alpha=0.5, seed=LAST_DRAW, **options)
    assert shards is not None


def test_a_division_is_drawn_again_until_nobody_is_left_out_and_not_for_ever():
    labels = np.zeros(4, dtype=np.int64)
    # The first draw leaves the first member without an example: 0 of 4.
    assert int(np.random.default_rng(3).dirichlet([0.5] * 3)[0] * 4) == 0
    assert as_lists(partition.dirichlet(labels, 3, 0.5, 3)) == [[1, 0], [2], [3]]
    assert partition.dirichlet(LABELS["even"], 50, 0.001, 0) is None


def test_a_division_is_what_it_was():
    # Written down, for where flwr-datasets cannot be asked.
    assert as_lists(partition.dirichlet(np.arange(12) % 3, 3, 0.5, 7)) == [
        [0],
        [5, 3, 6, 1, 7, 2, 8, 4],
        [11, 9, 10],
    ]
    assert as_lists(partition.iid(7, 3)) == [[0, 1, 2], [3, 4], [5, 6]]
