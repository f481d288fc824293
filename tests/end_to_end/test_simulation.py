"""The main job as a user runs it: `wash-fl simulate` in a process of its own, with Flower's real engine."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.descendants import Descendants, watched
from wash_fl.config import RunConfig
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.runs.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WASH_FL = [sys.executable, "-m", "wash_fl"]

DIGITS: dict[str, Any] = {"rounds": 5, "local-steps": 24, "learning-rate": 0.5, "p": 0.2}


def flags(options: dict[str, Any]) -> list[str]:
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


def simulate(
    folder: Path, options: dict[str, Any], wash_fl: Sequence[str | Path], environment: dict[str, str]
) -> tuple[str, RunFolder]:
    for _ in range(3):
        finished = subprocess.run(
            [*wash_fl, "simulate", *flags(options)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        # Ray gives its node 30 s to start, and no option makes that more: a busy machine takes more.
        if "timed out during startup" not in finished.stderr:
            break
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (run,) = [each for each in (folder / "runs").iterdir() if f"{each}/" in finished.stdout]
    return finished.stdout, RunFolder.open(run)


def check_nothing_runs_on(descendants: Descendants) -> None:
    lines = descendants.processes.values()
    for name in ("flower-superlink", "raylet", "ray::"):
        assert any(name in line for line in lines), f"no {name} was seen, so that none could be missed"
    assert descendants.alive() == []


@pytest.fixture
def descendants() -> Iterator[Descendants]:
    with watched() as descendants:
        yield descendants


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a folder with spaces")


@pytest.fixture(scope="module")
def of_digits() -> Iterator[Descendants]:
    with watched() as descendants:
        yield descendants


@pytest.fixture(scope="module")
def digits(folder: Path, of_digits: Descendants) -> tuple[str, RunFolder]:
    # Not only the run, the environment as well may lie in a folder with spaces.
    environment = folder / "env"
    environment.symlink_to(Path(sys.executable).parent.parent)
    wash_fl = [environment / "bin" / Path(sys.executable).name, "-m", "wash_fl"]
    return simulate(folder, DIGITS, wash_fl, of_digits.environment)


def test_a_simulation_gives_the_weights_of_the_in_process_trainer(digits: tuple[str, RunFolder]) -> None:
    # Which gives the same ones again, and a model worth having: tests/lab/compare/.
    assert Trainer(RunConfig.from_mapping(DIGITS)).run().sha256 == digits[1].summary()["weights_sha256"]


def test_a_run_shows_its_progress_and_leaves_a_complete_folder(digits: tuple[str, RunFolder]) -> None:
    output, run = digits
    for number in range(1, DIGITS["rounds"] + 1):
        assert f"round {number}/5" in output
    for word in ("loss", "distance", "sent up", "members", "averaged: one model", "ensemble of 4"):
        assert word in output
    names = {each.name for each in run.path.iterdir()}
    assert names == {
        "config.toml",
        "metrics.jsonl",
        "exchanges.jsonl",
        "averaged.safetensors",
        "model.onnx",
        "figures",
        "summary.json",
        "flower.log",
        "journal.sqlite",
    }
    assert {each.name for each in (run.path / "figures").iterdir()} == {
        "accuracy.png",
        "distance.png",
        "bytes.png",
    }
    rounds = [event for event in run.events() if event["event"] == "round"]
    assert [event["round"] for event in rounds] == list(range(1, DIGITS["rounds"] + 1))
    assert all(event["participants"] == [0, 1, 2, 3] for event in rounds)
    assert run.summary()["onnx"]["agreement"] == 1.0


@pytest.mark.usefixtures("digits")
def test_nothing_runs_on_after_the_run(of_digits: Descendants) -> None:
    check_nothing_runs_on(of_digits)


def test_the_finished_run_can_be_evaluated_exported_and_used(
    digits: tuple[str, RunFolder], tmp_path: Path, wash: Any
) -> None:
    import numpy as np

    from wash_fl.tasks import digits as task

    run = digits[1]
    found = json.loads(wash("evaluate", run.path, "--json").out)
    assert found["averaged"] == found["onnx"] == run.summary()["accuracy"]["averaged"]
    before = (run.path / "model.onnx").read_bytes()
    assert wash("export", run.path, "-o", tmp_path / "again.onnx").status == 0
    assert (tmp_path / "again.onnx").read_bytes() == before
    refused = wash("export", run.path, "--tolerance", "1e-12")
    assert refused.status == 1
    assert "above the tolerance of 1e-12" in refused.err
    assert (run.path / "model.onnx").read_bytes() == before
    (run.path / "model.refused.onnx").unlink()
    image, label = task.test_data()[0]
    np.save(tmp_path / "image.npy", image.numpy())
    predicted = json.loads(wash("predict", run.path / "model.onnx", tmp_path / "image.npy", "--json").out)
    assert predicted["predictions"][0]["label"] == str(int(label))


@pytest.mark.parametrize(
    ("after", "number"),
    [pytest.param("start", signal.SIGTERM, marks=pytest.mark.long), ("round 3", signal.SIGINT)],
)
def test_an_interrupted_run_leaves_no_process_and_no_half_written_file(
    tmp_path: Path, descendants: Descendants, after: str, number: signal.Signals
) -> None:
    run = subprocess.Popen(
        [*WASH_FL, "simulate", "--rounds", "10000", "--run-name", "cut"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=descendants.environment | {"PYTHONUNBUFFERED": "1"},
    )
    assert run.stdout is not None
    for line in run.stdout:
        if line.strip().startswith("starting Flower" if after == "start" else "round     3/"):
            break
    # Right after the start there is a moment in which a process is being started.
    time.sleep(1.0)
    run.send_signal(number)
    _, errors = run.communicate(timeout=600)
    assert run.returncode == 130
    assert "interrupted" in errors
    if after == "start":
        assert descendants.alive() == []
    else:
        check_nothing_runs_on(descendants)
    assert not list(tmp_path.rglob("*.part"))
    folder = tmp_path / "runs" / "cut"
    if after != "start":
        assert len(list(RunFolder.open(folder).events())) >= 3
        assert not (folder / "summary.json").exists()


@pytest.mark.long
def test_a_run_that_fails_says_why_on_one_line_and_stops_everything(
    tmp_path: Path, descendants: Descendants
) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "CLASSES, INPUT_SHAPE = ('a', 'b'), (4,)\n"
        "def model():\n    return torch.nn.Linear(4, 2)\n"
        "def train_data():\n    return TensorDataset(torch.ones(8, 4), torch.zeros(8, dtype=torch.long))\n"
        "test_data = train_data\n"
        "CALLS = []\n"
        "def loss(outputs, targets):\n"
        "    CALLS.append(len(CALLS))  # what nobody can see before the run\n"
        "    return outputs.sum() * (float('nan') if CALLS[-1] > 10 else 1e-3)\n"
    )
    finished = subprocess.run(
        [*WASH_FL, "simulate", "--task", "mine.py", "--members", "2", "--rounds", "2", "--run-name", "nan"],
        cwd=tmp_path,
        env=descendants.environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert finished.returncode == 1
    *warnings, line = finished.stderr.strip().splitlines()
    assert all(each.startswith("warning: ") for each in warnings), warnings
    assert line.startswith("error: the run failed:")
    assert "flower.log" in line
    assert "diverged" in (tmp_path / "runs" / "nan" / "flower.log").read_text()
    check_nothing_runs_on(descendants)
