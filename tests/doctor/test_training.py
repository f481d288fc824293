"""What the steps that were tried say of the machine, however they ended."""

import json
import sys
from typing import Any

import pytest

from wash_fl.config import RunConfig
from wash_fl.doctor import probe, training
from wash_fl.doctor.machine import Memory
from wash_fl.doctor.training import FLOWER, judge, read
from wash_fl.extras import install_hint
from wash_fl.system.peak import ProcessResult, watch

MB = 1_000_000
GB = 1000 * MB
PLENTY = Memory(8 * GB, 7 * GB, 0, 0)
CONFIG = RunConfig()

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("up", "down")
INPUT_SHAPE = (4,)


class Model(nn.Linear):
    def forward(self, inputs):
        {forward}
        return super().forward(inputs)


def model():
    return Model(4, 2)


def train_data():
    {data}
    return TensorDataset(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)


test_data = train_data
"""


def trial_of(status: int = 0, peak: int = 500 * MB, timed_out: bool = False, **facts: Any) -> training.Trial:
    """Steps that printed this last."""
    lines = [{"at": "training"}, facts]
    return read(
        ProcessResult(
            status=status,
            peak=peak,
            seconds=12.0,
            timed_out=timed_out,
            out="\n".join(map(json.dumps, lines)),
            err="Traceback\nKeyError: 'x'\n",
        )
    )


def levels(*arguments: Any) -> dict[str, str]:
    return {each.name: each.level for each in judge(*arguments)}


def finished_trial(seconds: float = 0.1, peak: int = 500 * MB) -> training.Trial:
    return trial_of(parameters=100, examples=8, seconds=[seconds, seconds, 9.0], peak=peak)


def test_steps_that_fit_are_well():
    assert levels(finished_trial(), CONFIG, PLENTY) == {"data": "ok", "training step": "ok", "pace": "ok"}
    assert levels(finished_trial(), CONFIG, None)["training step"] == "ok"


@pytest.mark.parametrize(
    ("available", "swap", "level"),
    [(500 * MB + FLOWER, 0, "ok"), (500 * MB, 2 * GB, "warning"), (500 * MB, 0, "problem")],
)
def test_flower_must_fit_beside_the_step_and_swap_is_second_best(available, swap, level):
    memory = Memory(GB, available, swap, swap)
    assert levels(finished_trial(), CONFIG, memory)["training step"] == level


def test_a_round_that_takes_longer_than_it_may_is_a_problem():
    config = RunConfig.from_mapping({"local-steps": 1000, "round-timeout": 60.0})
    *_, pace = judge(finished_trial(seconds=0.1), config, PLENTY)
    assert (pace.name, pace.level) == ("pace", "problem")
    assert "100.0 s for a round" in pace.detail and "--local-seconds" in pace.advice
    # The median: one slow step among them is no slow device.
    assert levels(finished_trial(seconds=0.05), config, PLENTY)["pace"] == "ok"


def test_training_by_time_says_how_many_steps_that_are():
    config = RunConfig.from_mapping({"local-seconds": 60.0})
    *_, pace = judge(finished_trial(seconds=0.1), config, PLENTY)
    assert pace.level == "ok" and "600 steps" in pace.detail


def test_a_program_that_the_system_killed_did_not_fit():
    killed = (
        'import os; print(\'{"at": "training"}\', flush=True); '
        "x = b'a' * 150_000_000; os.kill(os.getpid(), 9)"
    )
    trial = read(watch([sys.executable, "-c", killed], timeout=60))
    (finding,) = judge(trial, CONFIG, PLENTY)
    assert finding.level == "problem"
    assert "the system killed it" in finding.detail and "while training" in finding.detail
    assert "--batch-size" in finding.advice and "swap" in finding.advice


@pytest.mark.parametrize(
    ("trial", "detail", "advice"),
    [
        (trial_of(-9, timed_out=True), "not done after 12 s", "swapping"),
        (trial_of(1, no_memory="can't allocate memory"), "can't allocate memory", "--batch-size"),
        (trial_of(-4), "died of SIGILL while training", "does not run on this processor"),
        (trial_of(1, refused="no CLASSES: add them."), "no CLASSES: add them", "mend this"),
        (trial_of(1), "KeyError: 'x'", "mend this"),
    ],
)
def test_each_other_end_has_its_advice(trial, detail, advice):
    (finding,) = judge(trial, CONFIG, PLENTY)
    assert finding.level == "problem"
    assert detail in finding.detail and advice in finding.advice


def test_missing_data_is_a_problem_of_its_own_and_the_step_is_tried_all_the_same():
    trial = trial_of(parameters=100, no_data="no Fashion-MNIST: connect.", seconds=[0.1], peak=MB)
    assert levels(trial, CONFIG, PLENTY) == {"data": "problem", "training step": "ok", "pace": "ok"}


def test_what_a_task_prints_is_not_taken_for_an_answer():
    noise = 'Downloading...\n[1, 2]\n"at"\n{"at": "training"}\n50%'
    trial = read(ProcessResult(status=0, peak=0, seconds=1.0, timed_out=False, out=noise, err=""))
    assert (trial.at, trial.facts) == ("training", {})


def test_without_torch_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    monkeypatch.setattr(training, "watch", None)
    (finding,) = training.training(CONFIG, 0, PLENTY)
    assert finding.level == "problem"
    assert "torch is not installed" in finding.detail and install_hint("client") in finding.advice


@pytest.fixture
def tell(monkeypatch, tmp_path, capsys):
    """``tell(forward=..., data=..., **options)``: what the probe says of a task, in this process."""
    monkeypatch.setattr(probe, "_be_the_first_to_be_killed", lambda: None)

    def run(
        forward: str = "pass", data: str = "pass", stand_in: Any = None, **options: Any
    ) -> training.Trial:
        path = tmp_path / f"task{len(list(tmp_path.iterdir()))}.py"
        path.write_text(TASK.format(forward=forward, data=data))
        request = {
            "options": {"task": str(path), "batch-size": 4, **options},
            "member": 0,
            "stand_in": stand_in,
        }
        capsys.readouterr()
        status = probe.main(request)
        out = capsys.readouterr().out
        return read(ProcessResult(status=status, peak=0, seconds=1.0, timed_out=False, out=out, err=""))

    return run


def test_the_probe_trains_and_says_how_long_each_step_took(tell):
    trial = tell()
    assert trial.process.status == 0
    assert trial.facts["examples"] == 8 and trial.facts["parameters"] == 10
    assert len(trial.facts["seconds"]) == probe.STEPS and min(trial.facts["seconds"]) > 0
    assert trial.peak == trial.facts["peak"] > 0


def test_the_probe_stops_early_on_a_slow_device(tell, monkeypatch):
    monkeypatch.setattr(probe, "ENOUGH_SECONDS", 0.0)
    assert len(tell().facts["seconds"]) == 1


def test_memory_that_pytorch_does_not_get_is_said(tell):
    trial = tell(forward="torch.empty(10**16)")
    assert trial.process.status == 1 and "memory" in trial.facts["no_memory"]


def test_a_model_that_fails_is_no_matter_of_memory(tell):
    trial = tell(forward="raise RuntimeError('shapes do not fit')")
    assert "shapes do not fit" in trial.facts["refused"]


def test_data_that_is_not_there_is_said_and_random_inputs_take_its_place(tell):
    trial = tell(data="from wash_fl.errors import DataError; raise DataError('no data.')")
    assert trial.process.status == 0
    assert trial.facts["no_data"] == "no data." and len(trial.facts["seconds"]) == probe.STEPS


def test_a_task_that_does_not_exist_is_refused(tell):
    assert "there is no task file" in tell(task="missing.py").facts["refused"]


def test_stand_in_inputs_are_of_the_shape_asked_for(tell):
    pytest.importorskip("torchvision")
    trial = tell(stand_in=[3, 32, 32], model="mobilenet-v3-small")
    assert trial.process.status == 0 and "examples" not in trial.facts
    assert trial.facts["parameters"] > 1_000_000


def test_a_real_step_in_a_process_of_its_own(tmp_path):
    path = tmp_path / "task.py"
    path.write_text(TASK.format(forward="pass", data="pass"))
    config = RunConfig.from_mapping({"task": str(path), "batch-size": 4})
    findings = {each.name: each for each in training.training(config, 0, PLENTY)}
    assert [each.level for each in findings.values()] == ["ok", "ok", "ok"]
    assert list(findings) == ["data", "training step", "pace"]
