"""A task is a function: whatever another process makes otherwise is refused, and what may vary is not."""

import os
import re

import pytest

from wash_fl.checks import function
from wash_fl.checks.run import CHECKS, check
from wash_fl.checks.twin import _other_seed
from wash_fl.errors import DataError, ExportError

PROCESS = tuple(each for each in CHECKS if each.__module__ == function.__name__)

DATA = "INPUTS = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))\n"
ITEMS = (
    DATA + "import random\nclass Items:\n"
    "    def __len__(self): return 40\n"
    "    def __getitem__(self, i): return {}, i % 2\n"
    "def train_data(): return Items()\n"
)

KINDS = {
    "a split without a seed": (
        DATA + "from torch.utils.data import random_split\n"
        "def _part(i):\n"
        "    whole = TensorDataset(INPUTS, torch.arange(40) % 2)\n"
        "    return random_split(whole, [0.8, 0.2])[i]\n"
        "def train_data(): return _part(0)\n"
        "def test_data(): return _part(1)",
        ["train_data()", "in another process", "fixed seed"],
    ),
    "as many examples as the clock says": (
        "import time\ndef train_data():\n"
        "    count = 50 + time.time_ns() // 1000 % 100000\n"
        "    return TensorDataset(torch.ones(count, 5), torch.arange(count) % 2)",
        ["train_data()", "examples here and", "in another process"],
    ),
    "labels by the order of a folder": (
        "from pathlib import Path\n"
        "FOLDERS = [each.name for each in Path(__file__).with_name('photos').iterdir()]\n"
        "def train_data():\n"
        "    return [(torch.full((5,), float(len(name))), i) for i, name in enumerate(FOLDERS)]",
        ["train_data()", "other inputs in another process", "sort", "a folder"],
    ),
    "labels by the order of a set": (
        "NAMES = list({'heron', 'owl'})\n"
        "def test_data(): return [(torch.full((5,), float(len(name))), i) for i, name in enumerate(NAMES)]\n"
        "CLASSES = ('heron', 'owl')",
        ["test_data()", "other inputs in another process", "sort what comes from a set"],
    ),
    "an array in a list of a module": (
        "import numpy as np\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(5, 2)\n"
        "        self.codes = [np.random.default_rng().normal(size=3)]\n"
        "def model(): return Net()",
        ["'codes[0]' of the model", "no part of its state dict"],
    ),
    "weights by NumPy": (
        "import numpy as np\n"
        "def model():\n"
        "    built = nn.Linear(5, 2)\n"
        "    built.bias.data = torch.tensor(np.random.default_rng().normal(size=2)).float()\n"
        "    return built",
        ["initial 'bias'", "torch's own generator"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_function_is_refused(task, refused, tmp_path, kind):
    for name in ("owl", "heron"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    more, parts = KINDS[kind]
    with refused(DataError, *parts):
        check(task(more), checks=PROCESS)


VARYING = {
    "random transforms of torch's generator": (ITEMS.format("INPUTS[i] + torch.randn(5)"), []),
    "random transforms of another generator": (
        ITEMS.format("INPUTS[i] + random.random()"),
        ["drawn anew at each reading", "no run will repeat"],
    ),
}


@pytest.mark.parametrize("kind", VARYING)
def test_random_transforms_of_training_data_are_allowed(task, kind):
    more, parts = VARYING[kind]
    warnings = [each for each in check(task(more), checks=PROCESS) if each.level == "warning"]
    assert len(warnings) == bool(parts)
    assert all(part in warnings[0].detail for part in parts)


def test_random_transforms_of_test_data_are_not(task, refused):
    more = ITEMS.format("INPUTS[i] + torch.randn(5)").replace("train_data", "test_data")
    with refused(DataError, "test_data()", "other inputs in another process"):
        check(task(more), checks=PROCESS)


FORWARD = (
    "class Net(nn.Linear):\n"
    "    def forward(self, inputs): return super().forward({})\n"
    "def model(): return Net(5, 2)"
)


@pytest.mark.parametrize(
    "inputs",
    ["nn.functional.dropout(inputs)", "inputs + torch.rand(5)", "inputs + 9 * __import__('random').random()"],
)
def test_a_model_that_draws_when_it_answers_is_refused(task, refused, inputs):
    data = DATA + "def test_data(): return TensorDataset(INPUTS, torch.arange(40) % 2)\n"
    with refused(ExportError, "the second time"):
        check(task(data + FORWARD.format(inputs)), exports=False)


def test_what_works_here_alone_is_refused_with_the_reason(task, refused, monkeypatch):
    monkeypatch.setattr("sys.argv", ["here"])
    more = "import sys\nassert sys.argv == ['here'], 'elsewhere'"
    with refused(DataError, "works here", "new process", "AssertionError: elsewhere", "mine.py:"):
        check(task(more), checks=PROCESS)


def test_a_process_that_dies_is_told_of(task, refused):
    more = "import os\nif 'twin' in ' '.join(__import__('sys').argv): os.abort()"
    with refused(DataError, "works here", "it ended with status -6"):
        check(task(more), checks=PROCESS)


def test_what_a_task_prints_harms_nothing(task):
    more = (
        "import os\nprint('loading')\nos.write(1, b'raw')\n"
        "def model():\n    print('{}')\n    return nn.Linear(5, 2)"
    )
    assert check(task(more), checks=PROCESS)


@pytest.mark.parametrize("names", [("a", "b"), ("left", "middle", "right"), tuple("0123456789")])
def test_the_other_process_has_another_order_of_sets(names):
    import json
    import subprocess
    import sys

    program = "import json, sys; print(json.dumps(list(set(json.loads(sys.argv[1])))))"
    process = subprocess.run(
        [sys.executable, "-c", program, json.dumps(names)],
        env=os.environ | {"PYTHONHASHSEED": str(_other_seed(names))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout) != list(set(names))
    assert not re.search("error", process.stderr, re.IGNORECASE)
