"""Tests of the division of examples among members."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError, DataError
from wash_fl.tasks import Task, division, fetch, labels_of, member_examples, select, tensors_of

torch.set_num_threads(1)


def numbered(examples, classes=5):
    """Return examples whose input is their number, so that each can be told from the others."""
    return TensorDataset(torch.arange(examples).float().unsqueeze(1), torch.arange(examples) % classes)


class Items(Dataset):
    """A map-style data set that is not a TensorDataset."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(IterableDataset):
    """Not map-style."""

    def __iter__(self):
        return iter([])


def make_task(train, test=None, member_data=None):
    return Task(
        name="a-task",
        classes=tuple("abcde"),
        input_shape=(1,),
        preprocessing="",
        model=lambda: nn.Linear(1, 5),
        train_data=lambda: train,
        test_data=lambda: train if test is None else test,
        loss=nn.functional.cross_entropy,
        member_data=member_data,
    )


def as_items(dataset):
    return Items([(value, int(label)) for value, label in dataset])


def config(**options):
    return RunConfig.from_mapping(options)


def numbers(dataset):
    return tensors_of(dataset)[0].flatten().int().tolist()


def shards(task, run):
    return [numbers(member_examples(task, run, member)) for member in range(run.training.members)]


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
@pytest.mark.parametrize("convert", [lambda data: data, as_items], ids=["tensors", "items"])
def test_shards_are_disjoint_and_cover_everything(kind, convert):
    task = make_task(convert(numbered(203)))
    for members in (2, 7):
        parts = shards(task, config(division=kind, members=members, seed=1))
        assert sorted(number for part in parts for number in part) == list(range(203))


def test_iid_shards_are_equal_in_size_shuffled_and_seeded():
    task = make_task(numbered(203))
    parts = shards(task, config(division="iid", members=4, seed=1))
    assert sorted(map(len, parts)) == [50, 51, 51, 51]
    assert parts[0] != sorted(parts[0])
    assert parts == shards(task, config(division="iid", members=4, seed=1))
    assert parts != shards(task, config(division="iid", members=4, seed=2))


def test_dirichlet_shards_are_skewed_and_seeded():
    task = make_task(numbered(1000))

    def skew(alpha, seed=1):
        """Return the mean over members of the largest class's share; 1/5 is even."""
        run = config(division="dirichlet", members=4, alpha=alpha, seed=seed)
        counts = [np.bincount(np.array(part) % 5, minlength=5) for part in shards(task, run)]
        return np.mean([count.max() / count.sum() for count in counts]), counts

    strong, counts = skew(0.1)
    weak, _ = skew(1000.0)
    assert weak < 0.25
    assert strong > 0.5
    np.testing.assert_array_equal(counts, skew(0.1)[1])
    assert not np.array_equal(counts, skew(0.1, seed=2)[1])


@pytest.mark.filterwarnings("error")
def test_an_empty_shard_is_refused_with_a_hint_and_without_warnings():
    run = config(division="dirichlet", members=8, alpha=1e-4)
    with pytest.raises(
        DataError, match=r"8 members with alpha = 0\.0001; use fewer members or a larger alpha"
    ):
        member_examples(make_task(numbered(100)), run, 0)


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_more_members_than_examples_are_refused(kind):
    with pytest.raises(DataError, match="3 examples cannot be divided among 4 members"):
        member_examples(make_task(numbered(50)), config(division=kind, train_examples=3), 3)


def test_shared_gives_each_member_all_of_it():
    data = numbered(20)
    task = make_task(data)
    assert all(member_examples(task, config(), member) is data for member in range(4))


def test_a_limit_takes_the_same_stratified_part_for_all_members():
    task = make_task(numbered(100))
    first, *others = shards(task, config(train_examples=25, seed=3))
    assert np.bincount(np.array(first) % 5).tolist() == [5] * 5
    assert all(other == first for other in others)
    assert set(first) != set(shards(task, config(train_examples=25, seed=4))[0])
    divided = shards(task, config(train_examples=25, seed=3, division="iid"))
    assert sorted(number for part in divided for number in part) == sorted(first)


def test_a_limit_beyond_the_data_takes_all_of_it():
    assert len(numbers(member_examples(make_task(numbered(10)), config(train_examples=11), 0))) == 10


def test_test_examples_are_limited_on_their_own():
    task = make_task(numbered(100), test=numbered(50))
    assert len(division.test_examples(task, config(train_examples=7))) == 50
    assert len(numbers(division.test_examples(task, config(test_examples=7)))) == 7


def test_member_data_replaces_the_division():
    def own(member, members):
        return TensorDataset(torch.full((member + 1, 1), float(members)), torch.zeros(member + 1).long())

    task = make_task(numbered(100), member_data=own)
    assert shards(task, config(members=3)) == [[3], [3, 3], [3, 3, 3]]
    assert shards(task, config(members=3, train_examples=2)) == [[3], [3, 3], [3, 3]]


def test_another_division_of_data_that_is_divided_already_is_refused():
    task = make_task(numbered(100), member_data=lambda member, members: numbered(10))
    with pytest.raises(ConfigError, match=r"division = 'iid' .* \(member_data\): leave it out"):
        member_examples(task, config(division="iid"), 0)


@pytest.mark.parametrize("member", [-1, 4])
def test_a_member_that_does_not_exist_is_refused(member):
    with pytest.raises(ConfigError, match=f"no member {member}: members = 4, so they are 0 to 3"):
        member_examples(make_task(numbered(10)), config(), member)


@pytest.mark.parametrize(
    "labels", [np.arange(60) % 3, np.repeat([0, 1, 2], [40, 15, 5])], ids=["even", "uneven"]
)
def test_every_beginning_of_a_stratified_order_has_each_class_at_its_share(labels):
    order = division.stratified_order(labels, 7, "test")
    assert sorted(order) == list(range(60))
    for size in range(1, 61):
        share = size * np.bincount(labels) / 60
        assert np.abs(np.bincount(labels[order[:size]], minlength=3) - share).max() <= 1.5


def test_a_tensor_data_set_stays_one():
    part = select(numbered(10), np.array([7, 2]))
    assert isinstance(part, TensorDataset) and numbers(part) == [7, 2]


def test_both_kinds_of_data_set_give_the_same_batches_labels_and_tensors():
    tensors, items = numbered(30), as_items(numbered(30))
    subset = select(items, np.array([5, 3, 8, 29]))
    for one, other in [
        (fetch(tensors, np.array([4, 0, 4])), fetch(items, np.array([4, 0, 4]))),
        (fetch(tensors, [8, 5]), fetch(subset, torch.tensor([2, 0]))),
        (tensors_of(tensors), tensors_of(items)),
    ]:
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
        assert (other[0].dtype, other[1].dtype) == (torch.float32, torch.int64)
    for data in (tensors, items):
        assert labels_of(data).dtype == np.int64
        assert labels_of(data).tolist() == [number % 5 for number in range(30)]
    assert labels_of(select(tensors, np.array([5, 3]))).tolist() == [0, 3]


ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Stream(), "Stream is not a map-style data set"),
        (Items([]), "is empty"),
        (Items([(ONE, 0, 1)]), "pair, and here it is 3 parts"),
        (Items([{"x": ONE, "y": 0}]), "pair, and here it is a dict"),
        (TensorDataset(torch.zeros(3, 1)), "pair, and here it is 1 parts"),
        (Items([(torch.zeros(2), 0)]), r"inputs of shape \(2,\), and its INPUT_SHAPE is \(1,\)"),
    ],
)
def test_data_that_does_not_fit_the_task_is_refused_at_the_start(data, message):
    for run in (config(), config(division="iid")):
        with pytest.raises(DataError, match=message):
            member_examples(make_task(data), run, 0)
    with pytest.raises(DataError, match=message):
        division.test_examples(make_task(data), config())


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(torch.zeros(3, 1), torch.zeros(3)),
        TensorDataset(torch.zeros(3, 1), torch.zeros(3, 5).long()),
        Items([(ONE, 0.5)]),
    ],
)
def test_targets_that_are_no_class_indices_are_refused(data):
    with pytest.raises(DataError, match="targets of the data must be class indices"):
        labels_of(data)


@pytest.mark.parametrize("second", [(torch.zeros(2), 0), (object(), 0)], ids=["ragged", "no-tensor"])
def test_examples_that_do_not_stack_are_refused(second):
    with pytest.raises(DataError, match="do not stack into tensors"):
        tensors_of(Items([(second[0], 0), (ONE, 0)]))


PROGRAM = """
import socket
import sys

def refused(*_):
    raise SystemExit("something asked for the network")

socket.socket.connect = socket.getaddrinfo = refused
# What the extra ``client`` does not bring.
sys.modules |= dict.fromkeys(["datasets", "flwr_datasets", "matplotlib", "pandas", "pyarrow", "torchvision"])

from wash_fl.config import RunConfig
from wash_fl.tasks import load_task, member_examples

for division in ("iid", "dirichlet"):
    member_examples(load_task("digits"), RunConfig.from_mapping({"division": division}), 1)
"""


def test_dividing_needs_the_client_alone_prints_nothing_writes_nothing_and_asks_no_network(tmp_path):
    home = {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=home, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
