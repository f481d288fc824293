"""A user's own code fails in one line that names it, and imports what lies beside it in every process."""

import os
import subprocess
import sys

import pytest
import torch

from wash_fl.errors import ConfigError, DataError, described
from wash_fl.tasks import load_task

torch.set_num_threads(1)

TASK = """\
import torch
from torch import nn
from torch.utils.data import TensorDataset
CLASSES = ("up", "down")
INPUT_SHAPE = (5,)
def model(): return nn.Linear(5, 2)
def train_data(): return TensorDataset(torch.ones(8, 5), torch.arange(8) % 2)
test_data = train_data
"""


def write(folder, text, name="mine.py"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return str(path)


FILES = {
    "a syntax error": ("def model(:\n", ConfigError, ["SyntaxError", "mine.py:1"]),
    "an indentation": (TASK + "  x = 1\n", ConfigError, ["IndentationError", "mine.py:9"]),
    "a null byte": ("x = 1\0", ConfigError, ["null bytes"]),
    "a name": (TASK + "print(undefined)\n", ConfigError, ["NameError", "'undefined'", "mine.py:9"]),
    "a program": (
        TASK + "import sys\nsys.exit(3)\n",
        ConfigError,
        ["ends the program", "mine.py:10", "__main__"],
    ),
    "arguments": (
        TASK + "from argparse import ArgumentParser\np = ArgumentParser()\np.error('no --x')",
        ConfigError,
        ["ends the program", "mine.py:11"],
    ),
    "a missing module": (TASK + "import no_such_sensor\n", DataError, ["'no_such_sensor'", "mine.py:9"]),
    "a missing name": (
        TASK + "from torch import no_such\n",
        ConfigError,
        ["ImportError", "no_such", "mine.py:9"],
    ),
    "a model that is none": (
        TASK + "model = nn.Linear(5, 2).weight\n",
        ConfigError,
        ["model", "a function", "def"],
    ),
    "data that is no function": (
        TASK + "train_data = [1]\n",
        ConfigError,
        ["train_data", "a function", "a list"],
    ),
    "classes in a set": (TASK + "CLASSES = {'up', 'down'}\n", ConfigError, ["CLASSES", "the set", "a tuple"]),
    "classes as keys": (
        TASK + "CLASSES = dict(up=0, down=1).keys()\n",
        ConfigError,
        ["the dict_keys", "a list"],
    ),
    "one class in brackets": (TASK + "CLASSES = ('cat')\n", ConfigError, ["the str cat", "a tuple"]),
    "a shape in a set": (TASK + "INPUT_SHAPE = {5}\n", ConfigError, ["INPUT_SHAPE", "positive integers"]),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_task_is_refused_with_its_line(tmp_path, refused, capfd, kind):
    text, error, parts = FILES[kind]
    path = write(tmp_path, text)
    with refused(error, *parts):
        load_task(path)


def test_a_module_that_is_no_task_is_refused_with_its_line(tmp_path, refused, monkeypatch):
    write(tmp_path, TASK + "1 / 0\n", "wash_test_dividing_task.py")
    monkeypatch.syspath_prepend(tmp_path)
    with refused(
        ConfigError, "'wash_test_dividing_task'", "ZeroDivisionError", "wash_test_dividing_task.py:9"
    ):
        load_task("wash_test_dividing_task")


def test_a_module_is_found_where_the_command_is_typed(tmp_path, monkeypatch):
    write(tmp_path, TASK, "wash_test_here_task.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", ".")])
    assert load_task("wash_test_here_task").classes == ("up", "down")


def test_an_error_of_ours_goes_through_as_it_is(tmp_path, refused):
    text = (
        TASK
        + "from wash_fl.errors import DataError\ndef train_data(): raise DataError('no card: insert it.')\n"
    )
    with refused(DataError, "no card: insert it."):
        load_task(write(tmp_path, text)).train_data()


def test_an_interrupt_stays_one(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        load_task(write(tmp_path, TASK + "raise KeyboardInterrupt\n"))


def test_a_reason_without_words_is_the_name_of_the_error():
    assert described(ValueError(), whole=True) == "ValueError"
    assert described(ValueError("one\n two."), whole=True) == "ValueError: one two"


# What lies beside a task

BESIDE = TASK.replace("nn.Linear(5, 2)", "helpers.Net()") + "import helpers\n"
HELPERS = """\
from torch import nn
NAME = "{}"
class Net(nn.Linear):
    def __init__(self): super().__init__(5, 2)
"""
LATE = f"""{TASK}
def train_data():
    import helpers
    size = len(helpers.NAME)
    return TensorDataset(torch.ones(size, 5), torch.arange(size))
"""


def test_a_module_beside_the_task_is_imported(tmp_path):
    write(tmp_path / "a", HELPERS.format("a"), "helpers.py")
    task = load_task(write(tmp_path / "a", BESIDE))
    assert type(task.model()).__module__ == "helpers"


def test_a_package_and_a_mere_folder_beside_the_task_are_imported(tmp_path):
    write(tmp_path, TASK + "import nets.small, plain.part\nassert plain.part.X == 1\n")
    write(tmp_path / "nets", "", "__init__.py")
    write(tmp_path / "nets", "from . import other\n", "small.py")
    write(tmp_path / "nets", "", "other.py")
    write(tmp_path / "plain", "X = 1\n", "part.py")
    assert load_task(str(tmp_path / "mine.py")).classes


def test_two_tasks_have_helpers_of_the_same_name_each(tmp_path):
    tasks = {}
    for name in ("one", "three"):
        write(tmp_path / name, HELPERS.format(name), "helpers.py")
        tasks[name] = load_task(write(tmp_path / name, LATE))
    # Late imports, in turns: each finds its own.
    assert [len(tasks[name].train_data()) for name in ("one", "three")] == [3, 5]
    for name in ("three", "one"):
        load_task.cache_clear()
        again = load_task(str(tmp_path / name / "mine.py"))
        assert len(again.train_data()) == len(name)


def test_a_helper_that_is_named_as_a_module_of_pythons_shadows_nothing(tmp_path):
    write(tmp_path, "raise AssertionError('imported')\n", "calendar.py")
    write(
        tmp_path,
        TASK + "import sys\nsys.modules.pop('calendar', None)\nimport calendar\ncalendar.isleap(4)\n",
    )
    assert load_task(str(tmp_path / "mine.py")).classes


def test_a_folder_of_data_named_as_a_package_shadows_nothing(tmp_path):
    (tmp_path / "safetensors").mkdir()
    write(tmp_path, TASK + "import sys\nimport safetensors\nassert safetensors.__file__\n")
    program = f"from wash_fl.tasks import load_task; load_task({str(tmp_path / 'mine.py')!r})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)
