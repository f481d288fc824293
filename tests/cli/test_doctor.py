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
def found(monkeypatch) -> dict:
    """What is asked for, and what is found: ``found["findings"]``, which a test changes."""
    seen: dict = {"findings": [WELL]}

    def examine(config, **asked):
        seen["config"] = config
        seen["asked"] = asked
        return iter(seen["findings"])

    monkeypatch.setattr(doctor, "examine", examine)
    return seen


def run(*arguments: str):
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "40"})


def test_all_is_well(found):
    said = run()
    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
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
def test_a_problem_is_the_status_and_each_finding_has_its_advice(found, findings, status, summary):
    found["findings"] = findings
    said = run("--superlink", "server:8443")
    assert said.exit_code == status
    lines = said.stdout.splitlines()
    assert lines[-1] == summary
    assert [line for line in lines if "->" in line] == [
        f"         -> {each.advice}" for each in findings if each.advice
    ]


def test_json_is_one_object(found):
    found["findings"] = [POOR, BAD]
    said = run("--json")
    assert said.exit_code == 1
    assert len(said.stdout.splitlines()) == 1
    assert json.loads(said.stdout) == {
        "problems": 1, "warnings": 1, "findings": [POOR.as_json(), BAD.as_json()]
    }  # fmt: skip


def test_what_is_given_is_what_is_examined(found, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('task = "smartwatch"\nbatch-size = 8\nmembers = 6\n')
    said = run(
        *("--config", str(file), "--batch-size", "16", "--member", "5"),
        *("--superlink", "[::1]:8443", "--root-certificates", "ca.crt"),
    )
    assert said.exit_code == 0
    assert (found["config"].task.task, found["config"].training.batch_size) == ("smartwatch", 16)
    assert str(found["asked"]["superlink"]) == "[::1]:8443"
    assert str(found["asked"]["authority"]) == "ca.crt" and found["asked"]["member"] == 5


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--superlink", "server"], "HOST:PORT"),
        (["--root-certificates", "ca.crt"], "--superlink"),
        (["--member", "4"], "members = 4"),
        (["--batch-size", "0"], "batch-size = 0"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_checked(found, arguments, part):
    said = run(*arguments)
    assert isinstance(said.exception, ConfigError) and part in str(said.exception)
    assert "config" not in found
