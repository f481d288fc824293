"""What cannot work is found out before anything is started, and said in one line."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError, DataError, ExportError, LayoutError, WashError
from wash_fl.preflight import check
from wash_fl.tasks import fashion_mnist, load_task

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("up", "down")
INPUT_SHAPE = (5,)


def model():
    return nn.Linear(5, 2)


def train_data():
    return TensorDataset(torch.ones(8, 5), torch.arange(8) % 2)


def test_data():
    return TensorDataset(torch.ones(4, 5), torch.arange(4) % 2)


"""


@pytest.fixture
def task(tmp_path) -> Callable[..., RunConfig]:
    """``task(more)``: the options of a run of a user's task, with more Python after the plain one."""

    def write(more: str = "", **options: Any) -> RunConfig:
        path = tmp_path / "mine.py"
        path.write_text(TASK + more)
        return RunConfig.from_mapping({"task": str(path), **options})

    return write


@pytest.mark.parametrize("options", [{}, {"exchange-optimizer": True}, {"division": "iid", "members": 8}])
def test_a_run_that_can_work_passes(task, options):
    check(task(**options))


def test_the_built_in_task_passes():
    check(RunConfig())


def test_a_single_test_example_is_enough(task):
    check(task(**{"test-examples": 1}))


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ("", {"batch-size": 1, "calibration-examples": 1}),
        (
            "def model(): return nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))",
            {"calibration-examples": 1, "batchnorm": "average"},
        ),
        (
            "def model():\n"
            "    norm = nn.BatchNorm1d(1)\n"
            "    return nn.Sequential(nn.Unflatten(1, (1, 5)), norm, nn.Flatten(), nn.Linear(5, 2))",
            {"batch-size": 1, "calibration-examples": 1},
        ),
    ],
    ids=["no BatchNorm", "no calibration", "several values per channel"],
)
def test_a_single_example_is_enough_where_batchnorm_does_not_see_it_alone(task, more, options):
    check(task(more, **options))


def test_it_leaves_the_users_model_untrained_and_data_as_it_was(task):
    config = task()
    loaded = load_task(config.task.task)
    before = [each.clone() for each in loaded.train_data().tensors]
    check(config)
    assert all(map(torch.equal, loaded.train_data().tensors, before))


REFUSALS: dict[str, tuple[str, dict[str, Any], type[WashError], list[str]]] = {
    "unknown model": (
        "",
        {"model": "resnet-200"},
        ConfigError,
        ["'resnet-200'", "small-cnn, resnet20", "task of your own"],
    ),
    "model for images": (
        "",
        {"model": "small-cnn"},
        ConfigError,
        ["'small-cnn'", "(channels, height, width)", "(5,)", "use model = 'default'"],
    ),
    "augmentation for images": (
        "",
        {"augment": "grid"},
        ConfigError,
        ["augment = 'grid'", "(channels, height, width)", "(5,)", "use augment = 'none'"],
    ),
    "nothing to train": (
        "def model(): return nn.Linear(5, 2).requires_grad_(False)",
        {},
        LayoutError,
        ["no trainable parameter", "unfreeze"],
    ),
    "other precision": (
        "def model(): return nn.Linear(5, 2).double()",
        {},
        LayoutError,
        ["'weight' is float64", "model.float()"],
    ),
    "frozen in a precision that cannot be collected": (
        "def model():\n"
        "    frozen = nn.Linear(2, 2).bfloat16().requires_grad_(False)\n"
        "    return nn.Sequential(nn.Linear(5, 2), frozen)",
        {},
        LayoutError,
        ["'1.weight' is bfloat16", ".half()"],
    ),
    "a batch too small for BatchNorm": (
        "def model(): return nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))",
        {"batch-size": 1},
        ConfigError,
        ["one example", "BatchNorm", "batch-size = 2"],
    ),
    "a calibration too small for BatchNorm": (
        "def model(): return nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))",
        {"calibration-examples": 1},
        ConfigError,
        ["one example", "BatchNorm", "calibration-examples = 2"],
    ),
    "a shard too small for BatchNorm's calibration": (
        "def model(): return nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))\n"
        "def member_data(member, members):\n"
        "    return TensorDataset(torch.ones(4 - member, 5), torch.zeros(4 - member).long())",
        {"members": 4},
        ConfigError,
        ["one example", "calibration-examples", "each member at least 2 examples"],
    ),
    "too few examples": (
        "",
        {"division": "iid", "members": 9},
        DataError,
        ["8 examples", "9 members", "lower members"],
    ),
    "an empty shard": (
        "def member_data(member, members):\n"
        "    return TensorDataset(torch.ones(3 - member, 5), torch.zeros(3 - member).long())",
        {"members": 4},
        DataError,
        ["member_data(3, 4)", "is empty"],
    ),
    "a class that has no name": (
        "def test_data(): return TensorDataset(torch.ones(4, 5), torch.arange(4) % 3)",
        {},
        DataError,
        ["classes 0 to 2", "2 CLASSES", "0 to 1"],
    ),
    "test data of another shape": (
        "def test_data(): return TensorDataset(torch.ones(4, 6), torch.arange(4) % 2)",
        {},
        DataError,
        ["test_data()", "(6,)", "INPUT_SHAPE", "(5,)"],
    ),
    "examples of two shapes": (
        "def test_data(): return [(torch.ones(5), 0), (torch.ones(6), 1)]",
        {},
        DataError,
        ["do not stack", "tensors of one shape"],
    ),
    "model of other inputs": (
        "def model(): return nn.Linear(7, 2)",
        {},
        DataError,
        ["cannot answer the task's test data", "7"],
    ),
    "model of other dimensions": (
        "def model(): return nn.Sequential(nn.Linear(5, 2), nn.BatchNorm2d(2))",
        {},
        DataError,
        ["cannot answer the task's test data", "4D"],
    ),
    "inputs of another dtype": (
        "def test_data(): return TensorDataset(torch.ones(4, 5).double(), torch.arange(4) % 2)",
        {},
        DataError,
        ["cannot answer the task's test data", "dtype"],
    ),
    "activations viewed as rows where they lie otherwise": (
        "INPUT_SHAPE = (2, 4, 4)\n"
        "def train_data(): return TensorDataset(torch.ones(40, 2, 4, 4), torch.arange(40) % 2)\n"
        "test_data = train_data\n"
        "class Rows(nn.Sequential):\n"
        "    def forward(self, inputs): return self[1](self[0](inputs).view(len(inputs), -1))\n"
        "def model(): return Rows(nn.Conv2d(2, 3, 1), nn.Linear(48, 2))",
        {"memory-format": "channels-last"},
        DataError,
        ["cannot answer the task's test data", "view size is not compatible", "Use .reshape(...) instead."],
    ),
    "too many outputs": (
        "def model(): return nn.Linear(5, 3)",
        {},
        DataError,
        ["2 examples in shape (2, 3)", "(2, 2)", "CLASSES"],
    ),
    "batch and classes mixed up": (
        "def model(): return nn.Sequential(nn.Linear(5, 2), nn.Flatten(0))",
        {},
        DataError,
        ["in shape (4,)", "(2, 2)"],
    ),
    "no tensor": (
        "class Pair(nn.Linear):\n    def forward(self, inputs): return super().forward(inputs), inputs\n"
        "def model(): return Pair(5, 2)",
        {},
        DataError,
        ["in shape ()", "(2, 2)"],
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_work_is_refused(task, refused, case):
    more, options, kind, parts = REFUSALS[case]
    with refused(kind, *parts):
        check(task(more, **options))


def test_an_unknown_task_is_refused(refused):
    with refused(ConfigError, "'digit'", "digits, fashion-mnist"):
        check(RunConfig.from_mapping({"task": "digit"}))


def test_a_device_that_is_not_there_is_refused(task, refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused(ConfigError, "device = 'cuda'", "use auto"):
        check(task(device="cuda"))


def test_a_missing_data_set_is_refused(refused, monkeypatch, tmp_path):
    def no_network(folder):
        raise OSError("no network")

    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "no-debian")
    monkeypatch.setattr(fashion_mnist, "_download", no_network)
    monkeypatch.setenv("WASH_FL_DATA", str(tmp_path))
    load_task.cache_clear()  # another test may have had the data
    with refused(DataError, "no Fashion-MNIST", str(tmp_path), "apt install", "WASH_FL_DATA"):
        check(RunConfig.from_mapping({"task": "fashion-mnist"}))
    load_task.cache_clear()


def test_a_normalization_that_the_data_has_not_is_found_before_the_training_and_not_after(monkeypatch):
    task = replace(load_task("digits"), normalization=((0.5,), (0.5,)))
    monkeypatch.setattr("wash_fl.preflight.load_task", lambda name: task)
    with pytest.raises(ExportError, match="pixels that were not normalized"):
        check(RunConfig())
