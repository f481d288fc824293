"""What Flower's command line answers, understood; a real SuperLink is asked in the end-to-end tests."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from wash_fl.deploy import control as module
from wash_fl.deploy.control import Control, RunStatus, started_run
from wash_fl.deploy.new_files import CredentialsError
from wash_fl.deploy.node_keys import make_node_key
from wash_fl.errors import RunError


@pytest.fixture
def control() -> Control:
    return Control("mine", {"FLWR_HOME": "/nowhere"})


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``answers(stdout)``: what flwr says next; ``answers.calls`` are its arguments."""
    calls: list[list[str]] = []

    def say(out: Any, err: str = "") -> None:
        text = out if isinstance(out, str) else json.dumps(out)

        def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            assert options["env"] == {"FLWR_HOME": "/nowhere"}
            calls.append(command[1:])
            return subprocess.CompletedProcess(command, 0, text, err)

        monkeypatch.setattr(module.subprocess, "run", run)

    say.calls = calls  # type: ignore[attr-defined]
    return say


def test_a_key_is_registered_on_the_connection_that_is_named(control, answers, tmp_path):
    _, public = make_node_key(tmp_path, "pi")
    answers({"success": True, "node-id": 17})
    assert control.register(public) == "17"
    assert answers.calls == [["supernode", "register", str(public), "mine", "--format", "json"]]


def test_a_key_that_is_known_is_no_error(control, answers, tmp_path):
    _, public = make_node_key(tmp_path, "pi")
    answers({"success": False, "error-message": "Using SuperLink\n\n[code: 23] Public key already in use."})
    assert control.register(public) is None


def test_what_is_no_key_is_not_even_asked_for(control, answers, tmp_path, refused):
    answers({"success": True, "node-id": 17})
    with refused(CredentialsError, "nothing.pub"):
        control.register(tmp_path / "nothing.pub")
    assert answers.calls == []


def test_a_refusal_is_one_line_with_flowers_own_reason(control, answers, refused):
    answers(
        {
            "success": False,
            "error-message": "Using SuperLink: mine (x)\n\nConnection to the\nSuperLink is gone.",
        }
    )
    with refused(RunError, "'mine'", "flwr stop 7", "Connection to the SuperLink is gone."):
        control.stop(7)


@pytest.mark.parametrize("answer", ["", "Traceback: no JSON", "{broken", '{"runs": []'])
def test_an_answer_that_is_none_is_an_error_too(control, answers, refused, answer):
    answers(answer, err="it fell over")
    with refused(RunError, "it fell over"):
        control.status(7)


def test_a_runs_status_is_flowers_even_after_a_warning(control, answers):
    answer = {"success": True, "runs": [{"status": "finished:failed", "status-details": "why"}]}
    answers("Warning: old\n" + json.dumps(answer, indent=2))
    assert control.status(7) == RunStatus("finished:failed", "why")


def test_nodes_that_are_online_are_told_apart(control, answers):
    nodes = [{"node-id": "1", "status": "online"}, {"node-id": "2", "status": "offline"}]
    answers({"success": True, "nodes": nodes})
    assert control.online() == {"1"}


def test_without_a_name_flowers_default_is_asked(answers):
    answers({"success": True})
    Control("", {"FLWR_HOME": "/nowhere"}).stop(7)
    assert answers.calls == [["stop", "7", "--format", "json"]]


def test_a_superlink_that_hangs_is_an_error(control, monkeypatch, refused):
    def hang(*command: Any, **options: Any) -> Any:
        raise subprocess.TimeoutExpired("flwr", 1)

    monkeypatch.setattr(module.subprocess, "run", hang)
    with refused(RunError, "did not answer"):
        control.stop(7)


def test_the_users_own_settings_of_flower_are_kept(monkeypatch):
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.delenv("FLWR_DISABLE_UPDATE_CHECK", raising=False)
    environment = Control.named("mine").environment
    assert (environment["FLWR_TELEMETRY_ENABLED"], environment["FLWR_DISABLE_UPDATE_CHECK"]) == ("1", "1")


def test_the_run_that_flower_started_is_found_in_its_log(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("Successfully started run 12 in federation x\n")
    assert started_run(log) == 12
    before = log.stat().st_size
    assert started_run(log, before) is None
    with log.open("a") as file:
        file.write("Using SuperLink\nSuccessfully started run 34\n")
    assert started_run(log, before) == 34
