"""What may be wrong with a user's data: each kind is refused in one line, or simply works."""

import numpy as np
import pytest
import torch

from wash_fl.checks import data
from wash_fl.checks.look import look
from wash_fl.checks.subject import Subject
from wash_fl.errors import DataError

HERE = (data.inputs, data.labels, data.every_class, data.leak)
ROWS = "torch.randn(40, 5, generator=torch.Generator().manual_seed(1))"


def check(config):
    subject = Subject(config)
    return [finding for each in HERE for finding in each(subject)]


def part(which, inputs=ROWS, targets="torch.arange(40) % 2"):
    return f"def {which}(): return TensorDataset({inputs}, {targets})\n"


LABELS = {
    "counted from 1": (part("train_data", targets="torch.arange(40) % 2 + 1"), ["1 to 2", "subtract 1"]),
    "counted from 1 in the test data": (
        part("test_data", targets="torch.arange(40) % 2 + 1"),
        ["test_data()", "1 to 2", "subtract 1"],
    ),
    "a class too many": (
        part("train_data", targets="torch.arange(40) % 3"),
        ["0 to 2", "example 2 has 2", "must be 0 to 1"],
    ),
    "ignored by cross entropy": (
        part("train_data", targets="torch.where(torch.arange(40) == 9, -100, 1)"),
        ["example 9 has -100", "leave out"],
    ),
    "in one member's data": (
        f"def member_data(member, members):\n    return TensorDataset({ROWS}, torch.full((40,), member))",
        ["member_data(2, 4)", "2 to 2", "0 to 1"],
    ),
    "float": (
        part("train_data", targets="torch.ones(40)"),
        ["train_data()", "float32", "class indices", ".long()"],
    ),
    "bool": (part("train_data", targets="torch.arange(40) % 2 > 0"), ["bool", ".long()"]),
    "a float column": (
        part("train_data", targets="torch.zeros(40, 1)"),
        ["shape (1,)", ".squeeze(1).long()"],
    ),
    "one-hot": (
        part("train_data", targets="torch.eye(2)[torch.arange(40) % 2]"),
        ["shape (2,)", ".argmax(1)"],
    ),
    "a column": (
        part("train_data", targets="(torch.arange(40) % 2)[:, None]"),
        ["shape (1,)", "with .squeeze(1)."],
    ),
    "words": ("def train_data(): return [(torch.ones(5), 'up')] * 9", ["train_data()", "class indices"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_no_class_indices_are_refused(task, refused, kind):
    more, parts = LABELS[kind]
    with refused(DataError, *parts):
        check(task(more))


INPUTS = {
    "NaN in the training data": (
        part("train_data", inputs=f"torch.where(torch.arange(200).view(40, 5) == 196, torch.nan, {ROWS})"),
        ["input 39 of train_data()", "NaN"],
    ),
    "infinity in the test data": (part("test_data", inputs=f"{ROWS} / 0"), ["of test_data()", "infinity"]),
    "NaN in a list": (
        "def train_data(): return [(torch.full((5,), float('nan') if i == 6 else 1.0), 0) for i in range(9)]",
        ["input 6 of train_data()", "NaN"],
    ),
    "float64 arrays": (
        "import numpy as np\ndef train_data(): return [(np.ones(5), 0), (np.zeros(5), 1)]",
        ["train_data()", "are float64", ".float()"],
    ),
    "half precision": (part("train_data", inputs=f"{ROWS}.half()"), ["float16", ".float()"]),
    "of two types": (
        part("train_data", inputs=f"({ROWS} * 9).long()"),
        ["train_data()", "int64", "test_data()", "float32", "one type"],
    ),
    "of two shapes": (
        "def train_data(): return [(torch.ones(5 + (i == 7)), i % 2) for i in range(9)]",
        ["train_data()", "(6,)", "(5,)", "one shape"],
    ),
    "of two dtypes": (
        "def train_data(): return [(torch.ones(5).int() if i == 7 else torch.ones(5), 0) for i in range(9)]",
        ["train_data()", "int32", "float32", "one shape and type"],
    ),
    "channels last": (
        "INPUT_SHAPE = (3, 8, 8)\n" + part("train_data", inputs="torch.ones(40, 8, 8, 3)"),
        ["(8, 8, 3)", "(3, 8, 8)", ".permute(2, 0, 1)"],
    ),
    "no tensors": (
        "class Picture:\n    shape = __array__ = None\n"
        "class Pictures:\n"
        "    def __len__(self): return 3\n"
        "    def __getitem__(self, i): return (torch.ones(5) if i == 0 else object()), 0\n"
        "def train_data(): return Pictures()",
        ["train_data()", "of type object", "give tensors"],
    ),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_that_no_model_can_take_are_refused(task, refused, kind):
    more, parts = INPUTS[kind]
    with refused(DataError, *parts):
        check(task(more))


SETS = {
    "a loader": (
        "from torch.utils.data import DataLoader\n"
        "def train_data(): return DataLoader(TensorDataset(torch.ones(8, 5), torch.arange(8) % 2))",
        ["train_data()", "DataLoader", "give its .dataset"],
    ),
    "a stream": (
        "from torch.utils.data import IterableDataset\n"
        "class Stream(IterableDataset):\n    def __iter__(self): return iter([])\n"
        "def test_data(): return Stream()",
        ["test_data()", "Stream", "__getitem__"],
    ),
    "nothing": ("def train_data(): pass", ["train_data()", "NoneType", "is a return missing?"]),
    "a generator": ("def train_data(): yield torch.ones(5), 0", ["generator", "__getitem__"]),
    "two tensors": (
        "def train_data(): return torch.ones(8, 5), torch.arange(8) % 2",
        ["train_data()", "pair", "a Tensor", "TensorDataset(inputs, targets)"],
    ),
    "empty": ("def train_data(): return []", ["train_data()", "is empty"]),
    "an empty member": (
        "def member_data(member, members): return [(torch.ones(5), 0)] * (3 - member)",
        ["member_data(3, 4)", "is empty"],
    ),
    "raised": (
        "def train_data():\n    with open('no-such-file.csv') as file: return file",
        ["train_data()", "FileNotFoundError", "no-such-file.csv", "mine.py:23"],
    ),
    "raised by an item": (
        "class Broken:\n"
        "    def __len__(self): return 9\n"
        "    def __getitem__(self, i):\n"
        "        return torch.ones(5), [0, 1][i]\n"
        "def train_data(): return Broken()",
        ["train_data()", "IndexError", "mine.py:25"],
    ),
}


@pytest.mark.parametrize("kind", SETS)
def test_what_is_no_data_set_is_refused_with_what_to_give(task, refused, kind):
    more, parts = SETS[kind]
    with refused(DataError, *parts):
        check(task(more))


@pytest.mark.parametrize("dtype", ["int32", "int16", "uint8", "int64"])
@pytest.mark.parametrize(
    "form", ["TensorDataset({0}, {1})", "list(zip({0}, {1}))", "list(zip({0}, {1}.numpy()))"]
)
def test_labels_of_any_integer_type_train(task, dtype, form):
    from wash_fl.lab.compare.trainer import Trainer

    data_set = form.format(ROWS, f"(torch.arange(40) % 2).to(torch.{dtype})")
    config = task(
        f"def train_data(): return {data_set}\ntest_data = train_data", rounds=1, **{"local-steps": 2}
    )
    check(config)
    assert 0 <= Trainer(config).run().recalibrated <= 1


def test_a_list_of_pairs_is_a_data_set(task):
    details = {
        each.name: each.detail for each in check(task("def train_data(): return [(torch.ones(5), 1)] * 9"))
    }
    assert details["train data"] == "9 examples, labels 1 to 1, each class at least 0"


def test_a_class_that_nobody_learns_or_judges_is_a_warning(task):
    more = part("train_data", targets="torch.zeros(40).long()") + part(
        "test_data", targets="torch.ones(40).long()"
    )
    findings = {each.name: each for each in check(task(more))}
    assert "'down'" in findings["classes of the training data"].detail
    assert "'up'" in findings["classes of the test data"].detail


def test_a_large_data_set_is_looked_at_for_a_bounded_time_and_tensors_whole():
    class Slow:
        def __len__(self):
            return 10_000_000

        def __getitem__(self, index):
            return torch.ones(1), index % 2

    summary = look(Slow(), "slow", seconds=0.2, seeded=True)
    assert 0 < len(summary.rows) == len(summary.hashes) < 10_000_000 and not summary.whole
    labels = torch.zeros(300_000, dtype=torch.int64)
    labels[123_456] = 7
    tensors = torch.utils.data.TensorDataset(torch.zeros(300_000, 1), labels)
    summary = look(tensors, "tensors", seconds=0, seeded=True)
    assert summary.whole and summary.labels.max() == 7 and len(summary.hashes) == 1
    assert np.array(summary.rows)[summary.labels.argmax()] == 123_456
