"""What cannot work is found out before anything is started, and said in one line."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from wash_fl.checks import function
from wash_fl.checks.run import CHECKS, check
from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError, DataError, ExportError, LayoutError, WashError
from wash_fl.tasks import fashion_mnist, load_task

pytestmark = pytest.mark.usefixtures("twin_if_asked")

HERE = tuple(each for each in CHECKS if each.__module__ != function.__name__)
"""Those that wait for no other process."""


@pytest.fixture(autouse=True)
def gradients_again():
    yield
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("options", [{}, {"exchange-optimizer": True}, {"division": "iid", "members": 8}])
def test_a_run_that_can_work_passes(task, options):
    check(task(**options))


@pytest.mark.parametrize(
    ("options", "kind", "parts"),
    [
        ({"every": 4}, ConfigError, ["every = 4", "exchange-plane = stream"]),
        ({"recipe": "frugal", "mix": "shuffle"}, ConfigError, ["recipe = frugal has topology = all"]),
        ({"optimizer": "adam", "exchange-optimizer": True}, LayoutError, ["exp_avg_sq", "dtype = int8"]),
    ],
)
def test_what_does_not_go_with_the_runs_recipe_is_refused(task, refused, options, kind, parts):
    with refused(kind, *parts):
        check(task(**options), checks=HERE)


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
    check(task(more, **options), checks=HERE)


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
    "gradients switched off": (
        "torch.set_grad_enabled(False)",
        {},
        DataError,
        ["switches gradients off for good", "torch.no_grad()"],
    ),
    "a layer in a plain list": (
        "class Hidden(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head, self.layers = nn.Linear(5, 2), [nn.Linear(5, 5)]\n"
        "    def forward(self, x):\n"
        "        return self.head(self.layers[0](x))\n"
        "def model(): return Hidden()",
        {},
        DataError,
        ["no parameters of the model", "(5, 5)", "nn.ModuleList"],
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
        ["run from 0 to 2", "example 2 has 2", "2 CLASSES", "0 to 1", "name the classes"],
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
        ExportError,
        ["the model cannot answer", "7"],
    ),
    "model of other dimensions": (
        "def model(): return nn.Sequential(nn.Linear(5, 2), nn.BatchNorm2d(2))",
        {},
        ExportError,
        ["the model cannot answer", "4D"],
    ),
    "inputs of another dtype": (
        "def test_data(): return TensorDataset(torch.ones(4, 5).double(), torch.arange(4) % 2)",
        {},
        DataError,
        ["test_data()", "are float64", ".float()"],
    ),
    "activations viewed as rows where they lie otherwise": (
        "INPUT_SHAPE = (2, 4, 4)\n"
        "def train_data(): return TensorDataset(torch.ones(40, 2, 4, 4), torch.arange(40) % 2)\n"
        "test_data = train_data\n"
        "class Rows(nn.Sequential):\n"
        "    def forward(self, inputs): return self[1](self[0](inputs).view(len(inputs), -1))\n"
        "def model(): return Rows(nn.Conv2d(2, 3, 1), nn.Linear(48, 2))",
        {"memory-format": "channels-last"},
        ExportError,
        ["the model cannot answer", "view size is not compatible", "at mine.py:26"],
    ),
    "too many outputs": (
        "def model(): return nn.Linear(5, 3)",
        {},
        ExportError,
        ["output is (4, 3)", "(4, 2)", "classes"],
    ),
    "batch and classes mixed up": (
        "def model(): return nn.Sequential(nn.Linear(5, 2), nn.Flatten(0))",
        {},
        ExportError,
        ["output is (8,)", "(4, 2)"],
    ),
    "no tensor": (
        "class Pair(nn.Linear):\n    def forward(self, inputs): return super().forward(inputs), inputs\n"
        "def model(): return Pair(5, 2)",
        {},
        ExportError,
        ["output is tuple", "return one tensor"],
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
    monkeypatch.setattr("wash_fl.checks.subject.load_task", lambda name: task)
    with pytest.raises(ExportError, match="pixels that were not normalized"):
        check(RunConfig())


def test_what_a_forward_makes_anew_to_take_its_gradient_is_nobodys_weight(task):
    check(
        task(
            "def loss(outputs, targets):\n"
            "    noise = torch.zeros(2, requires_grad=True)\n"
            "    return nn.functional.cross_entropy(outputs + noise, targets)"
        ),
        checks=HERE,
    )
