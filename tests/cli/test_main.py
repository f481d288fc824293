"""The command line as a user meets it: help that lists every option, and errors of one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wash_fl
from wash_fl.cli.main import main
from wash_fl.config import RunConfig, fields
from wash_fl.deploy import simulation
from wash_fl.deploy.submitting import with_absolute_paths
from wash_fl.errors import INTERRUPTED
from wash_fl.extras import install_hint
from wash_fl.option import shown_default
from wash_fl.runs.folder import MODEL, RunFolder

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("up", "[down]")
INPUT_SHAPE = (4,)


def model():
    return nn.Linear(4, 2)


def train_data():
    return TensorDataset(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)


test_data = train_data
"""


@pytest.fixture
def task_file(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TASK)
    return path


def assert_one_line(result, *parts: str) -> None:
    assert result.status not in (0, None)
    assert len(result.err.splitlines()) == 1, result.err
    assert result.err.startswith("error: ") and result.err.endswith("\n")
    assert result.out == "" and "Traceback" not in result.err
    for part in parts:
        assert part in result.err, (part, result.err)


# Help


@pytest.mark.parametrize(
    "command",
    [(), ("simulate",), ("export",), ("evaluate",), ("report",), ("predict",), ("bench",), ("bench", "wire")],
)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help_that_fits_the_terminal(wash, command, flag):
    result = wash(*command, flag, columns=80)
    assert (result.status, result.err) == (0, "")
    assert f"Usage: {' '.join(('wash-fl', *command))}" in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    assert "--help" in result.out


def test_the_help_of_simulate_lists_every_option_with_its_help_choices_and_default(wash):
    text = wash("simulate", "--help", columns=300).out
    lines = text.splitlines()
    for key, spec in fields().items():
        (line,) = [line for line in lines if f" --{key} " in line.replace("│", " ")]
        assert spec.metadata["help"] in line
        assert f"(default: {json.dumps(shown_default(spec))})" in line
        assert all(str(choice) in line for choice in spec.metadata["choices"])
    narrow = wash("simulate", "--help", columns=80).out
    assert all(f"--{key}" in narrow for key in fields())
    assert "--config" in narrow


def test_commands_are_listed_and_a_command_group_alone_shows_its_help(wash):
    text = wash("--help").out
    assert all(
        command in text for command in ("simulate", "export", "evaluate", "report", "predict", "bench")
    )
    result = wash("bench")
    assert "wire" in result.out + result.err and "exchange" in result.out + result.err


def test_the_version_is_the_packages(wash):
    assert wash("--version").out == f"{wash_fl.__version__}\n"


# How options reach a run


@pytest.fixture
def configs_asked_for(monkeypatch) -> list[RunConfig]:
    """The configs with which a simulation was asked for; none is run."""
    configs: list[RunConfig] = []

    def stop(config: RunConfig, on_event: Any) -> RunFolder:
        configs.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "simulate", stop)
    monkeypatch.setattr("wash_fl.checks.run.check", lambda config, **more: [])
    return configs


def test_every_option_can_be_given_and_is_read(wash, configs_asked_for):
    defaults = RunConfig.from_mapping({}).to_mapping()
    other: dict[str, Any] = {}
    # What goes together: an average over all has an anchor.
    averages = {"mix": "average", "topology": "all", "average-from": 0.0, "reference": "anchor"}
    for key, spec in fields().items():
        value = spec.default if spec.metadata["recipe"] else defaults[key]
        if key in averages:
            other[key] = averages[key]
        elif key == "task":
            other[key] = "fashion-mnist"
        elif spec.metadata["choices"]:
            other[key] = next(choice for choice in spec.metadata["choices"] if choice != value)
        elif isinstance(value, bool):
            other[key] = not value
        elif isinstance(value, int):
            other[key] = value + 3 if value + 3 <= spec.metadata["high"] else value - 3
        elif isinstance(value, float):
            other[key] = value / 2 or 0.5
        else:
            other[key] = f"{value}x"
    flags = [
        part
        for key, value in other.items()
        for part in ([f"--{key}"] if value is True else [f"--{key}", str(value)])
    ]
    result = wash("simulate", *flags)
    assert result.status == INTERRUPTED
    assert configs_asked_for == [with_absolute_paths(RunConfig.from_mapping(other))]
    assert not set(other.items()) & set(defaults.items())


def test_an_option_wins_over_the_config_file_which_wins_over_the_default(wash, configs_asked_for, tmp_path):
    path = tmp_path / "run.toml"
    place = f"run-dir = '{tmp_path}'\nrun-name = 'one'\n"
    path.write_text(f"{place}members = 7\n[exchange]\np = 0.25\nexchange-optimizer = true\n")
    wash("simulate", "--config", path, "--p", "0.5", "--no-exchange-optimizer")
    places = {"run-dir": str(tmp_path), "run-name": "one"}
    options = RunConfig.from_mapping({"members": 7, "p": 0.5} | places)
    assert configs_asked_for == [options]


def test_an_interrupted_simulation_says_so_and_has_the_status_of_an_interruption(wash, configs_asked_for):
    result = wash("simulate")
    assert result.status == 130
    assert result.err == "interrupted: everything that was started is stopped.\n"


# What is refused, and how


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["simulate", "--colour", "3"], ["--colour", "See wash-fl simulate --help."]),
        (["simulate", "--membres", "3"], ["--membres", "--members"]),
        (["simulate", "--members"], ["--members", "requires an argument"]),
        (["simulate", "--members", "many"], ["--members", "'many'", "integer"]),
        (["simulate", "--p", "much"], ["--p", "'much'", "float"]),
        (["simulate", "more"], ["more"]),
        (["simulate", "--p", "1.5"], ["p = 1.5", "at least 0 and at most 1", "try"]),
        (["simulate", "--p", "nan"], ["p = nan", "at least 0 and at most 1"]),
        (["simulate", "--members", "1"], ["members = 1", "at least 2", "nobody to exchange with"]),
        (["simulate", "--mix", "shake"], ["mix = 'shake'", "shuffle, average"]),
        (["simulate", "--members", "2", "--min-members", "3"], ["min-members = 3", "members = 2"]),
        (["simulate", "--config", "missing.toml"], ["cannot read", "missing.toml", "No such file"]),
        (["simulate", "--task", "digit"], ["no task 'digit'", "digits, fashion-mnist"]),
        (["simulate", "--task", "nowhere.py"], ["no task file", "nowhere.py"]),
        (["simulate", "--model", "resnet-200"], ["'resnet-200'", "small-cnn"]),
        (["evaluate", "."], ["not the folder of a run", "runs/"]),
        (["export", "nowhere"], ["nowhere", "not the folder of a run"]),
        (["evaluate"], ["Missing argument", "See wash-fl evaluate --help."]),
        (["predict", "missing.onnx", "input.npy"], ["missing.onnx", "ONNX file"]),
        (["predict"], ["Missing argument", "MODEL"]),
        (["predict", "model.onnx"], ["no file model.onnx"]),
        (["bench", "speed"], ["speed"]),
        (["simulat"], ["No such command 'simulat'. Did you mean 'simulate'? See wash-fl --help."]),
        (["bench", "exchnge"], ["No such command 'exchnge'. Did you mean 'exchange'? See wash-fl bench"]),
        (["simulate", "--colour", "3"], ["No such option '--colour'. See"]),
        (["evaluate", "--jsn", "x"], ["No such option '--jsn'. Did you mean '--json'? See"]),
    ],
    ids=lambda case: " ".join(case) if case and case[0].islower() else "",
)
def test_wrong_input_is_one_line_and_a_status(wash, monkeypatch, tmp_path, arguments, parts):
    monkeypatch.chdir(tmp_path)
    assert_one_line(wash(*arguments), *parts)
    assert list(tmp_path.iterdir()) == [], "nothing was started or written"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("local-stepz = 3", ["'local-stepz'", "Did you mean local-steps?"]),
        ("[exchange]\np = 1.5", ["p = 1.5", "at most 1"]),
        ("members = true", ["members = True is a bool", "must be an int"]),
        ("p = ", ["run.toml is not valid TOML"]),
    ],
)
def test_a_wrong_config_file_is_one_line(wash, tmp_path, content, parts):
    path = tmp_path / "run.toml"
    path.write_text(content)
    assert_one_line(wash("simulate", "--config", path), *parts)


def test_a_task_file_that_lacks_something_is_one_line(wash, task_file):
    task_file.write_text(TASK.replace("def model():", "def modle():"))
    result = wash("simulate", "--task", task_file)
    assert_one_line(result, str(task_file), "has no model", "needs CLASSES, INPUT_SHAPE, model()")


def test_a_missing_data_set_is_one_line(wash, monkeypatch, tmp_path):
    from wash_fl.tasks import fashion_mnist, load_task

    def no_network(folder: Path) -> None:
        raise OSError("no\nnetwork")

    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "no-debian")
    monkeypatch.setattr(fashion_mnist, "_download", no_network)
    monkeypatch.delenv("WASH_FL_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    load_task.cache_clear()  # another test may have had the data
    result = wash("simulate", "--task", "fashion-mnist")
    load_task.cache_clear()
    assert_one_line(
        result, "no Fashion-MNIST", str(tmp_path), "apt install dataset-fashion-mnist", "WASH_FL_DATA"
    )


def test_a_model_that_does_not_fit_is_one_line(wash, task_file):
    task_file.write_text(TASK.replace("nn.Linear(4, 2)", "nn.Linear(4, 3)"))
    assert_one_line(wash("simulate", "--task", task_file), "(8, 3)", "(8, 2)")


@pytest.mark.parametrize(
    ("package", "extra"),
    [("torchvision", "simulation"), ("psutil", "simulation"), ("tensorboard", "tensorboard")],
)
def test_a_package_that_is_missing_is_named_with_an_extra_that_suffices(wash, monkeypatch, package, extra):
    def missing(config: RunConfig, **more: Any) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("wash_fl.checks.run.check", missing)
    assert_one_line(wash("simulate"), package, install_hint(extra))


def test_a_fault_of_ours_is_not_dressed_up(monkeypatch):
    def fault(config: RunConfig, **more: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("wash_fl.checks.run.check", fault)
    monkeypatch.setattr(sys, "argv", ["wash-fl", "simulate"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_a_message_with_brackets_is_shown_as_it_is(wash, tmp_path):
    result = wash("simulate", "--task", "[red]x[/red]")
    assert_one_line(result, "'[red]x[/red]'")


def test_an_error_is_one_line_of_a_real_process_too():
    process = subprocess.run(
        [sys.executable, "-m", "wash_fl", "simulate", "--p", "1.5"],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "50"},
        timeout=120,
        check=False,
    )
    assert (process.returncode, process.stdout, len(process.stderr.splitlines())) == (1, "", 1)
    assert process.stderr.startswith("error: p = 1.5")


# A finished run


def test_a_run_is_exported_and_evaluated_again_and_its_answers_agree(wash, tmp_path, task_file):
    config = RunConfig.from_mapping({"task": str(task_file), "run-dir": str(tmp_path), "run-name": "a [b]"})
    folder = RunFolder.create(config)
    weight = np.array([[1, 0, 1, 0], [0, 1, 0, 1]], dtype=np.float32)
    folder.save_weights({"weight": weight, "bias": np.zeros(2, dtype=np.float32)})
    assert_one_line(wash("evaluate", folder.path), MODEL)
    exported = wash("export", folder.path)
    assert exported.status == 0
    assert exported.out.splitlines()[-1].startswith(f"{folder.path / MODEL}: largest difference to PyTorch")

    inputs = folder.path / "inputs.npy"
    result = wash("evaluate", folder.path, "--json")
    content = json.loads(result.out)
    assert content["examples"] == 8 and content["averaged"] == content["onnx"]
    from wash_fl.tasks import load_task

    examples, targets = load_task(str(task_file)).test_data().tensors
    np.save(inputs, examples.numpy())
    predictions = json.loads(wash("predict", folder.path / MODEL, inputs, "--json").out)["predictions"]
    expected = (examples.numpy() @ weight.T).argmax(1)
    assert [each["label"] for each in predictions] == [("up", "[down]")[index] for index in expected]
    assert content["averaged"] == (expected == targets.numpy()).mean()

    table = wash("evaluate", folder.path, columns=80)
    assert "a [b]: 8 test examples" in table.out and f"{content['averaged']:.2%}" in table.out
    assert_one_line(wash("export", folder.path, "--tolerance", "0"), "tolerance = 0.0", "above 0")
    raw = wash("export", folder.path, "--raw-inputs")
    assert raw.status == 1 and len(raw.err.splitlines()) == 1 and "NORMALIZATION" in raw.err


# Measurements


def test_bench_wire_prints_one_json_object_with_ratios_and_the_machine(wash):
    result = wash("bench", "wire", "--json")
    assert (result.status, result.err, len(result.out.splitlines())) == (0, "", 1)
    content = json.loads(result.out)
    assert content["bench"] == "wire"
    assert content["ratio_10000"] <= 1.10 and content["ratio_1000000"] <= 1.01
    assert {"cores", "cpu", "system", "python", "versions"} <= set(content["machine"])


def test_bench_prints_a_table_without_json(wash):
    result = wash("bench", "wire", columns=100)
    assert (result.status, result.err) == (0, "")
    assert "ratio_10000" in result.out and "{" not in result.out
    assert "cores" in result.out.splitlines()[-1] or "cores" in result.out


def test_bench_exchange_prints_what_it_measured(wash, monkeypatch):
    monkeypatch.setattr("wash_fl.lab.bench.exchange.run", lambda: {"step_ms": 1.5, "sizes": [1, 2]})
    content = json.loads(wash("bench", "exchange", "--json").out)
    assert (content["bench"], content["step_ms"], content["sizes"]) == ("exchange", 1.5, [1, 2])
