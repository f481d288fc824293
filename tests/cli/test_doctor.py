"""``wash-fl doctor`` as a user meets it."""

import json

import pytest
from typer.testing import CliRunner

from wash_fl import doctor
from wash_fl.cli.main import app
from wash_fl.doctor import Finding
from wash_fl.errors import ConfigError

WELL = Finding("disk", "ok", "room [for all]")
POOR = Finding("memory", "warning", "little", "add swap")
BAD = Finding("clock", "problem", "1970", "set it")


@pytest.fixture
def examination(monkeypatch) -> dict:
    """What is asked for, and what is found: ``examination["findings"]``, which a test changes."""
    record: dict = {"findings": [WELL]}

    def examine(config, **options):
        record["config"] = config
        record["options"] = options
        return iter(record["findings"])

    monkeypatch.setattr(doctor, "examine", examine)
    return record


def run(*arguments: str):
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "40"})


def test_all_is_well(examination):
    result = run()
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ok       disk: room [for all]",
        "all is well: this machine can join",
        "not checked: the SuperLink; give --superlink HOST:PORT",
    ]


@pytest.mark.parametrize(
    ("findings", "status", "summary"),
    [
        ([WELL, POOR], 0, "1 warning: this machine can join"),
        ([BAD], 1, "1 problem: this machine cannot join yet"),
        ([BAD, POOR, BAD], 1, "2 problems and 1 warning: this machine cannot join yet"),
    ],
)
def test_a_problem_is_the_status_and_each_finding_has_its_advice(examination, findings, status, summary):
    examination["findings"] = findings
    result = run("--superlink", "server:8443")
    assert result.exit_code == status
    lines = result.stdout.splitlines()
    assert lines[-1] == summary
    assert [line for line in lines if "->" in line] == [
        f"         -> {each.advice}" for each in findings if each.advice
    ]


def test_json_is_one_object(examination):
    examination["findings"] = [POOR, BAD]
    result = run("--json")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    assert json.loads(result.stdout) == {
        "problems": 1, "warnings": 1, "findings": [POOR.as_json(), BAD.as_json()]
    }  # fmt: skip


def test_what_is_given_is_what_is_examined(examination, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('task = "smartwatch"\nbatch-size = 8\nmembers = 6\n')
    result = run(
        *("--config", str(file), "--batch-size", "16", "--member", "5"),
        *("--superlink", "[::1]:8443", "--root-certificates", "ca.crt"),
    )
    assert result.exit_code == 0
    assert (examination["config"].task.task, examination["config"].training.batch_size) == ("smartwatch", 16)
    assert str(examination["options"]["superlink"]) == "[::1]:8443"
    assert str(examination["options"]["authority"]) == "ca.crt" and examination["options"]["member"] == 5


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--superlink", "server"], "HOST:PORT"),
        (["--root-certificates", "ca.crt"], "--superlink"),
        (["--member", "4"], "members = 4"),
        (["--batch-size", "0"], "batch-size = 0"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_checked(examination, arguments, part):
    result = run(*arguments)
    assert isinstance(result.exception, ConfigError) and part in str(result.exception)
    assert "config" not in examination
