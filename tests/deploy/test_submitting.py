"""What is told to Flower about a run, and how its events are read while it writes them."""

import errno
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from wash_fl.config import RunConfig
from wash_fl.deploy.submitting import (
    count_events,
    follow,
    keep_log,
    with_absolute_paths,
    write_options,
)
from wash_fl.errors import RunError
from wash_fl.runs.folder import LOG, SUMMARY, RunFolder


def config(tmp_path: Path, **options: Any) -> RunConfig:
    return RunConfig.from_mapping({"run-dir": str(tmp_path / "runs"), "run-name": "mine"} | options)


def test_paths_are_made_absolute_for_processes_that_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = with_absolute_paths(RunConfig.from_mapping({"task": "tasks/mine.py", "run-dir": "runs"}))
    assert settings.task.task == str(tmp_path / "tasks" / "mine.py")
    assert settings.fleet.run_dir == str(tmp_path / "runs")
    assert settings.fleet.run_name.startswith("mine-20")
    assert settings.fleet.state_dir == ""
    assert with_absolute_paths(settings) == settings


def test_a_run_that_did_not_finish_may_go_on_and_one_that_did_may_not(tmp_path, refused):
    folder = RunFolder.create(config(tmp_path))
    assert with_absolute_paths(config(tmp_path)).fleet.run_name == "mine"
    with refused(RunError, "p was", "other options"):
        with_absolute_paths(config(tmp_path, p=0.7))
    (folder.path / SUMMARY).write_text("{}")
    with refused(RunError, "'mine'", "finished"):
        with_absolute_paths(config(tmp_path))


def test_options_are_written_as_flower_reads_them(tmp_path):
    settings = config(tmp_path, **{"run-name": 'a "b" \\ é 😀', "exchange-optimizer": True, "p": 1e-7})
    write_options(settings, tmp_path / "run.toml")
    assert tomllib.loads((tmp_path / "run.toml").read_text(encoding="utf-8")) == settings.to_mapping()


def append(folder: Path, *events: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a") as file:
        for event in events:
            file.write(json.dumps({"event": event}) + "\n")


def test_events_are_handed_out_once_as_they_come_and_also_the_last_ones(tmp_path):
    # Each time before it is asked whether the run has ended, something happens; at the end as well.
    happenings = [(), ("start",), ("round", "round"), (), ("finished",)]
    folder = tmp_path / "run"

    def has_ended() -> bool:
        append(folder, *happenings.pop(0)) if happenings[0] or folder.exists() else happenings.pop(0)
        return not happenings

    assert [event["event"] for event in follow(folder, has_ended)] == ["start", "round", "round", "finished"]


def test_events_of_an_earlier_attempt_are_passed_over(tmp_path):
    append(tmp_path, "start", "failed")
    assert count_events(tmp_path) == 2
    assert count_events(tmp_path / "nothing") == 0
    append(tmp_path, "resume")
    assert [event["event"] for event in follow(tmp_path, lambda: True, 2)] == ["resume"]


def test_flowers_logs_of_all_attempts_are_kept(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "run"
    keep_log(log, folder)
    log.write_text("one\n")
    keep_log(log, folder)
    assert not folder.exists()
    folder.mkdir()
    keep_log(log, folder)
    log.write_text("two\n")
    keep_log(log, folder)
    assert (folder / LOG).read_text() == "one\ntwo\n"


def test_a_log_that_does_not_fit_on_the_disk_is_no_reason_to_fail(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "log").write_text("why the run has failed")
    monkeypatch.setattr("shutil.copyfileobj", full)
    keep_log(tmp_path / "log", tmp_path)


@pytest.mark.parametrize("content", [b"\0\0\n", b"\xff\n", b"null\n", b"[1]\n", b'{"round": 1}\n'])
def test_a_line_that_is_no_event_is_passed_over_by_whoever_follows(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_bytes(content + b'{"event": "start"}\n')
    assert [event["event"] for event in follow(tmp_path, lambda: True)] == ["start"]
    assert count_events(tmp_path) == 1


@pytest.mark.parametrize("line", ['{"event": "sta', ""])
def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(line)
    assert list(follow(tmp_path, lambda: True)) == []
    (tmp_path / "metrics.jsonl").write_text('{"event": "start"}\n')
    assert [event["event"] for event in follow(tmp_path, lambda: True)] == ["start"]
