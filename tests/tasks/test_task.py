"""Tests of the task interface: what a user's own task module must have, and what its absence says."""

import subprocess
import sys
import textwrap

import pytest
import torch

from wash_fl.errors import ConfigError, DataError
from wash_fl.tasks import initial_model, load_task

torch.set_num_threads(1)

USER_TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("up", "down")
INPUT_SHAPE = (5,)


def model():
    return nn.Linear(5, 2)


def train_data():
    return TensorDataset(torch.ones(8, 5), torch.arange(8) % 2)


test_data = train_data
"""


def write(folder, text, name="mine.py"):
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return str(path)


def test_a_file_with_the_required_names_is_a_task(tmp_path):
    task = load_task(write(tmp_path, USER_TASK))
    assert (task.classes, task.input_shape, task.preprocessing) == (("up", "down"), (5,), "")
    assert task.member_data is None
    assert task.loss is torch.nn.functional.cross_entropy
    assert initial_model("default", task, 0)(torch.ones(3, 5)).shape == (3, 2)


def test_a_task_may_bring_its_own_loss_preprocessing_and_division(tmp_path):
    extra = """
PREPROCESSING = "as it comes"

def loss(outputs, targets):
    return outputs.sum()

def member_data(member, members):
    return train_data()
"""
    task = load_task(write(tmp_path, USER_TASK + extra))
    assert task.preprocessing == "as it comes"
    assert task.loss(torch.ones(2, 2), torch.zeros(2)) == 4
    assert task.member_data is not None and len(task.member_data(0, 2)) == 8


def test_a_module_is_a_task_by_its_name(tmp_path, monkeypatch):
    write(tmp_path, USER_TASK, "wash_test_user_task.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_task("wash_test_user_task").classes == ("up", "down")


def test_missing_names_are_all_named(tmp_path):
    path = write(tmp_path, "CLASSES = ('a', 'b')\nINPUT_SHAPE = (1,)\ndef model(): ...\n")
    with pytest.raises(ConfigError, match=r"has no train_data, test_data: a task module needs"):
        load_task(path)


@pytest.mark.parametrize("name", ["digit", "no_such_package.task", "no/such/task", "", "./mine"])
def test_an_unknown_task_lists_what_there_is(name):
    with pytest.raises(ConfigError, match=r"there is no task .*digits, fashion-mnist"):
        load_task(name)


def test_whole_numbers_and_words_of_any_script_are_names(tmp_path):
    task = load_task(write(tmp_path, USER_TASK + "CLASSES = (7, '\u0645\u06cc\u200c\u062e')\n"))
    assert task.classes == ("7", "\u0645\u06cc\u200c\u062e")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no task file .*nowhere\.py"):
        load_task(str(tmp_path / "nowhere.py"))


def test_a_dependency_that_a_file_lacks_is_named(tmp_path):
    path = write(tmp_path, "import no_such_sensor_library\n")
    with pytest.raises(DataError, match="needs the module 'no_such_sensor_library'"):
        load_task(path)
    # And not half-loaded: the second attempt says the same.
    with pytest.raises(DataError, match="needs the module 'no_such_sensor_library'"):
        load_task(path)


def test_a_dependency_that_a_module_lacks_is_not_a_missing_task(tmp_path, monkeypatch):
    write(tmp_path, "import no_such_sensor_library\n", "wash_test_lacking_task.py")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="needs the module 'no_such_sensor_library'"):
        load_task("wash_test_lacking_task")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CLASSES = 10", "CLASSES .* at least two different names"),
        ("CLASSES = ('a', 'a')", "CLASSES .* at least two different names.*'a', is there twice"),
        ("CLASSES = ('a', 'a ')", "name 1, 'a ', cannot be told from 'a'"),
        ("CLASSES = ('a', '')", "name 1 is '', which nobody can see"),
        ("CLASSES = ('a', 'b\\x00')", "the invisible character"),
        ("CLASSES = ('a', 'b\\u202e')", "the invisible character"),
        ("CLASSES = ('caf\\u00e9', 'cafe\\u0301')", "cannot be told from"),
        ("CLASSES = ('a', None)", "name 1 is 'None', of type NoneType, and no text"),
        ("CLASSES = (0.5, 1.5)", "of type float"),
        ("COLUMNS = ('a', 'b', 'c', 'd', 'd ')", "COLUMNS .* cannot be told from 'd'"),
        ("INPUT_SHAPE = 28", "INPUT_SHAPE .* positive integers"),
        ("INPUT_SHAPE = (1, 0)", "INPUT_SHAPE .* positive integers"),
        ("INPUT_SHAPE = ()", "INPUT_SHAPE .* positive integers"),
        ("NORMALIZATION = 255", "NORMALIZATION .* one number or 5 .*255"),
        ("NORMALIZATION = (0.5, 0)", "NORMALIZATION .* std above 0"),
        ("NORMALIZATION = (0.5, 1, 2)", "NORMALIZATION .* a pair"),
        ("NORMALIZATION = ((0, 0), (1, 1))", "NORMALIZATION .* one number or 5"),
        ("NORMALIZATION = (0, (1, 1, 1, 1, 1))", "NORMALIZATION .* one number or 5"),
        ("NORMALIZATION = (float('nan'), 1)", "NORMALIZATION .* a pair"),
        ("NORMALIZATION = ('a', 'b')", "NORMALIZATION .* a pair"),
        ("NORMALIZATION = {0.5, 2.0}", "NORMALIZATION .* a pair"),
        ("COLUMNS = ('a', 'b')", "COLUMNS .* 5 different names"),
        ("COLUMNS = ('a', 'b', 'c', 'd', 'a')", "COLUMNS .* 5 different names"),
        ("COLUMNS = ('a', 'b', 'c', 'd', ' a ')", "COLUMNS .* 5 different names"),
        ("COLUMNS = ('a', 'b', 'c', 'd', ' ')", "COLUMNS .* 5 different names"),
        ("COLUMNS = 'abcde'", "COLUMNS .* 5 different names"),
        ("COLUMNS = {'a', 'b', 'c', 'd', 'e'}", "COLUMNS .* 5 different names"),
        ("COLUMNS = range(5)", "COLUMNS .* 5 different names"),
        ("COLUMNS = 5", "COLUMNS .* 5 different names"),
        ("AVERAGED_BUFFERS = 'ema.*'", "AVERAGED_BUFFERS .* in a tuple"),
        ("AVERAGED_BUFFERS = {'ema.*'}", "AVERAGED_BUFFERS .* in a tuple"),
        ("AVERAGED_BUFFERS = ('ema.*', '')", "AVERAGED_BUFFERS .* names of buffers"),
        ("AVERAGED_BUFFERS = (1,)", "AVERAGED_BUFFERS .* names of buffers"),
    ],
)
def test_a_wrong_declaration_is_refused(tmp_path, line, message):
    with pytest.raises(ConfigError, match=message):
        load_task(write(tmp_path, USER_TASK + "\n" + line))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", None),
        ("NORMALIZATION = (0.5, 2)", ((0.5,), (2.0,))),
        ("NORMALIZATION = [range(5), torch.ones(5)]", ((0.0, 1.0, 2.0, 3.0, 4.0), (1.0,) * 5)),
    ],
)
def test_a_normalization_is_a_pair_for_all_channels_or_for_each(tmp_path, line, expected):
    assert load_task(write(tmp_path, USER_TASK + "\n" + line)).normalization == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ()),
        ("COLUMNS = list('abcde')", tuple("abcde")),
        ("import numpy\nCOLUMNS = numpy.array(list('abcde'))", tuple("abcde")),
    ],
)
def test_columns_are_a_name_for_each_channel_in_an_order(tmp_path, line, expected):
    columns = load_task(write(tmp_path, USER_TASK + "\n" + line)).columns
    assert columns == expected and {type(each) for each in columns} <= {str}


@pytest.mark.parametrize(
    ("line", "expected"),
    [("", ()), ("AVERAGED_BUFFERS = ['ema.*', 'centers']", ("ema.*", "centers"))],
)
def test_a_task_may_mark_buffers_to_be_averaged(tmp_path, line, expected):
    assert load_task(write(tmp_path, USER_TASK + "\n" + line)).averaged_buffers == expected


def test_importing_the_package_loads_none_of_the_optional_libraries():
    heavy = "{'sklearn', 'torchvision', 'datasets', 'flwr_datasets', 'flwr', 'matplotlib'}"
    program = f"import sys, wash_fl.tasks; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
