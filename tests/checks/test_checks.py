"""Each check is needed: there is a bad task that it alone finds, and that passes without it.

The tasks are in the folder beside this file, named after the check that is to find them.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from wash_fl.checks import export, function
from wash_fl.checks.run import CHECKS, check
from wash_fl.checks.subject import Check
from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError, DataError, ExportError, LayoutError, WashError

pytestmark = pytest.mark.usefixtures("twin_if_asked")

TASKS = Path(__file__).with_name("tasks")

WITHOUT_ONNX = {"data_pixels", "model_answers"}
"""What the export would find as well, with other words and later; not every machine can export."""

REFUSALS: dict[str, tuple[type[WashError], list[str], dict[str, Any]]] = {
    "training_device": (ConfigError, ["device = 'cuda'", "use auto"], {"device": "cuda"}),
    "data_inputs": (
        DataError,
        ["input 57 of train_data()", "NaN", "leave such examples out"],
        {"batch-size": 4},
    ),
    "data_labels": (DataError, ["labels of train_data()", "-100", "0 to 2", "leave out the examples"], {}),
    "data_pixels": (ExportError, ["from 0 to 1", "not normalized"], {}),
    "model_parameters": (LayoutError, ["'reference' is bfloat16", ".float()"], {}),
    "model_fresh": (DataError, ["share '0.weight'", "build every part anew"], {}),
    "model_answers": (ExportError, ["otherwise alone than among others", "mixes the examples"], {}),
    "model_softmax": (DataError, ["ends in softmax", "return logits", "loss()"], {}),
    "training_batches": (
        ConfigError,
        ["one example", "calibration-examples = 2"],
        {"calibration-examples": 1},
    ),
    "training_loss": (DataError, ["loss of a batch is inf", "logarithm"], {}),
    "training_own_weights": (
        DataError,
        ["no parameters of the model", "of shape ()", "nn.ParameterList", "no gradient"],
        {},
    ),
    "training_step": (DataError, ["no parameter has a gradient other than 0", ".detach()"], {}),
    "function_names": (ConfigError, ["CLASSES", "in another process", "sort what comes from a set"], {}),
    "function_train_data": (DataError, ["train_data()", "other labels in another process", "fixed seed"], {}),
    "function_test_data": (DataError, ["test_data()", "other inputs in another process", "fixed seed"], {}),
    "model_tokens": (DataError, ["example 59", "to 55", "cannot answer", "table larger"], {}),
    "function_member_data": (DataError, ["member_data(0, 4)", "other", "time"], {}),
    "function_weights": (DataError, ["initial 'helper'", "same seed", "torch's own generator"], {}),
    "function_outside": (DataError, ["'noise'", "no part of its state dict", "register it as a buffer"], {}),
    "function_answers": (DataError, ["same weights answers otherwise in another process", "state dict"], {}),
    "function_loss": (DataError, ["loss(outputs, targets) is", "in another process", "fixed seed"], {}),
    "export_export": (
        ExportError,
        ["could not be exported when it is trained", "export_export.py:9", "branches on values"],
        {},
    ),
}

WARNINGS: dict[str, list[str]] = {
    "data_every_class": ["no example of 'right'", "leave such classes out"],
    "data_leak": ["10 of 40 test inputs (25.0%)", "split the data once"],
}


def named(each: Check) -> str:
    return f"{each.__module__.rpartition('.')[2]}_{each.__name__}"


BY_NAME = {named(each): each for each in CHECKS}


HERE = tuple(each for each in CHECKS if each.__module__ not in (function.__name__, export.__name__))
"""Those that wait for no other process and no exporter."""


@pytest.fixture(autouse=True)
def cpu_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def looked_at(monkeypatch):
    """``looked_at(name, checks)``: the warnings of these checks on the bad task of a check."""

    def look(name: str, checks: tuple[Check, ...]) -> list[str]:
        path = TASKS / f"{name if name != 'training_device' else 'good'}.py"
        options = REFUSALS[name][2] if name in REFUSALS else {}
        if name in WITHOUT_ONNX:
            monkeypatch.setattr(export, "find_spec", lambda package: None)
        config = RunConfig.from_mapping({"task": str(path), **options})
        findings = check(config, exports=name not in WITHOUT_ONNX, checks=checks)
        return [
            f"{each.detail}; {each.advice}"
            for each in findings
            if each.level != "ok" and each.name != "export"
        ]

    return look


def test_every_check_has_its_bad_task():
    assert REFUSALS.keys() | WARNINGS.keys() == BY_NAME.keys()
    assert {path.stem for path in TASKS.glob("*.py")} == BY_NAME.keys() - {"training_device"} | {"good"}


def test_a_good_task_passes_without_a_warning(looked_at):
    findings = check(RunConfig.from_mapping({"task": str(TASKS / "good.py")}))
    assert [each for each in findings if each.level != "ok"] == []
    details = {each.name: each.detail for each in findings}
    assert details["train data"] == "60 examples, labels 0 to 2, each class at least 20"
    assert details["train data again"] == "60 of 60 examples, the same in another process"
    assert "of ONNX, largest difference to PyTorch" in details["export"]


@pytest.mark.parametrize("name", REFUSALS)
def test_a_bad_task_is_refused_by_its_check(name, looked_at, refused):
    kind, parts, _ = REFUSALS[name]
    checks = CHECKS if name.startswith("export") else tuple(each for each in CHECKS if each != export.export)
    with refused(kind, *parts):
        looked_at(name, checks)


@pytest.mark.parametrize("name", WARNINGS)
def test_a_doubtful_task_is_warned_of_by_its_check(name, looked_at):
    (warning,) = looked_at(name, HERE)
    assert all(part in warning for part in WARNINGS[name]), warning


@pytest.mark.parametrize("name", [name for name, each in BY_NAME.items() if each in HERE])
def test_it_passes_without_that_check(name, looked_at):
    assert looked_at(name, tuple(each for each in HERE if named(each) != name)) == []


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, each in BY_NAME.items() if each not in HERE])
def test_it_passes_without_that_check_of_another_process_or_the_exporter(name, looked_at):
    assert looked_at(name, tuple(each for each in CHECKS if named(each) != name)) == []
