"""A run on a fleet goes on whatever dies on the server's side. A scripted SuperLink stands for a real one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from wash_fl.config import RunConfig
from wash_fl.deploy import serving
from wash_fl.deploy.control import Control, RunStatus
from wash_fl.errors import RunError
from wash_fl.runs.folder import LOG, SUMMARY, RunFolder

RUNNING = RunStatus("running", "N/A")


@dataclass(frozen=True)
class Attempt:
    """What happens when the run is submitted.

    Attributes
    ----------
    events : tuple
        What the ServerApp writes; a callable is called.
    status : RunStatus, optional
        What the SuperLink says of it afterwards; None if it does not answer.
    later : RunStatus, optional
        What it says when it does not answer at first; None if it does not know the run any more.
    accepts : bool
        Whether the SuperLink takes the run.
    lasts : bool
        Whether `flwr run --stream` goes on, so that only the ServerApp's death is seen.
    """

    events: tuple[Any, ...] = ()
    status: RunStatus | None = RUNNING
    later: RunStatus | None = None
    accepts: bool = True
    lasts: bool = False


@dataclass(frozen=True)
class FakeControl(Control):
    """A SuperLink with a script: one attempt after the other."""

    folder: Path = Path()
    attempts: list[Attempt] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    streams: list[Any] = field(default_factory=list)
    silent: set[int] = field(default_factory=set)

    def submit(self, app: Path, options: Path, log: Path) -> "subprocess.Popen[bytes]":
        assert (app / "pyproject.toml").is_file() and "run-name" in options.read_text()
        number = len(self.streams)
        attempt = self.attempts[number]
        with log.open("a") as file:
            file.write(
                f"Successfully started run {number}\n" if attempt.accepts else "Error: connection refused\n"
            )
        for entry in attempt.events:
            event = entry() if callable(entry) else entry
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"event": event} if isinstance(event, str) else event) + "\n")
        code = "import time; time.sleep(600)" if attempt.lasts else ""
        self.streams.append(subprocess.Popen([sys.executable, "-c", code]))
        return self.streams[-1]

    def status(self, run: int) -> RunStatus:
        attempt = self.attempts[run]
        status = attempt.later if run in self.silent else attempt.status
        self.silent.add(run)
        if status is None:
            raise RunError("the SuperLink does not answer.")
        return status

    def online(self) -> set[str]:
        return set()

    def stop(self, run: int) -> None:
        self.calls.append(f"stop {run}")


class ServedRun:
    """``served(attempts)``: serve the run on such a SuperLink; what was shown and said is kept."""

    def __init__(self, tmp_path: Path) -> None:
        self.config = RunConfig.from_mapping({"run-dir": str(tmp_path), "run-name": "mine"})
        self.folder = RunFolder.create(self.config).path
        self.events: list[str] = []
        self.lines: list[str] = []
        self.control = FakeControl("fake", {}, self.folder)

    def __call__(self, *attempts: Attempt, restarts: int = 5) -> RunFolder:
        self.control.attempts.extend(attempts)
        return serving.serve(self.config, self.control, self.show, restarts=restarts, say=self.lines.append)

    def show(self, event: dict[str, Any]) -> None:
        self.events.append(event["event"])


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedRun]:
    monkeypatch.setattr(serving, "FIRST_PAUSE", 0.01)
    result = ServedRun(tmp_path)
    yield result
    # Whatever is started is stopped.
    assert all(stream.poll() is not None for stream in result.control.streams)


def test_a_run_that_finishes_is_followed_to_its_end(served):
    folder = served(Attempt(("start", "round", "finished")))
    assert folder.path == served.folder
    assert (served.events, served.lines) == (["start", "round", "finished"], [])
    assert "Successfully started run 0" in (served.folder / LOG).read_text()


def test_two_commands_never_serve_one_run(served, refused):
    def second(event: dict[str, Any]) -> None:
        served.events.append(event["event"])
        with refused(RunError, "another command", "'mine'"):
            serving.serve(served.config, served.control, lambda event: None)

    served.show = second
    served(Attempt(("start", "finished")))
    assert served.events == ["start", "finished"] and len(served.control.streams) == 1


def test_a_run_at_which_a_server_of_somebody_else_works_is_not_served(served, refused):
    with RunFolder.at_work(served.config), refused(RunError, "a server is at work", "'mine'"):
        served(Attempt(("start", "finished")))
    assert served.control.streams == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (RUNNING, "the ServerApp was killed"),
        (RunStatus("finished:failed", "Task failed with unknown error."), "the ServerApp was killed"),
        (None, "the SuperLink does not answer"),
    ],
)
def test_a_server_that_dies_is_submitted_again_and_its_run_goes_on(served, status, reason):
    # On its way out a ServerApp may say that it failed; that is not the end of the run.
    served(Attempt(("start", "failed"), status), Attempt(("resume", "finished")))
    assert served.events == ["start", "failed", "resume", "finished"]
    assert served.lines == [
        f"the server's part of the run has ended early: {reason}; submitting it again (1 of 5)"
    ]
    # Two ServerApps must never work on one run.
    assert served.control.calls == ["stop 0"]


def test_the_death_of_the_serverapp_is_seen_at_once_where_it_runs_here(served):
    app = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def kill_at_start(event: dict[str, Any]) -> None:
        served.events.append(event["event"])
        if event["event"] == "start":
            app.kill()  # and nobody waits for it, as with Flower's launcher

    served.show = kill_at_start
    try:
        start = {"event": "start", "pid": app.pid}
        served(Attempt((start, "round"), lasts=True), Attempt(("resume", "finished")))
    finally:
        app.kill()
        app.wait()
    assert served.events == ["start", "round", "resume", "finished"]
    assert served.control.calls == ["stop 0"]


def test_a_serverapp_of_another_machine_is_not_taken_for_dead(served, monkeypatch):
    monkeypatch.setattr(serving.processes, "STOP_SECONDS", 0.2)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    served(Attempt(({"event": "start", "pid": process.pid}, "round", "finished"), lasts=True))
    assert served.lines == []


def test_a_run_that_fails_for_a_reason_of_its_own_is_not_tried_again(served, refused):
    status = RunStatus("finished:failed", "ServerApp failed with exception: no member\ntook part.")
    with refused(RunError, "the run failed: no member took part", LOG):
        served(Attempt(("start", "failed"), status))


def test_a_run_that_somebody_stopped_is_not_started_again(served, refused):
    with refused(RunError, "flwr stop", f"--resume {served.folder}"):
        served(Attempt(("start",), RunStatus("finished:stopped", "N/A")))


def test_a_run_that_went_on_elsewhere_is_an_error_that_says_where_to_serve(served, refused):
    with refused(RunError, "SuperLink's machine", "run-dir"):
        served(Attempt((), RunStatus("finished:completed", "N/A")))


def test_a_run_that_died_after_it_had_written_everything_is_done(served):
    def summary() -> str:
        (served.folder / SUMMARY).write_text("{}")
        return "recalibrated"

    assert served(Attempt(("start", summary))).path == served.folder
    assert served.lines == []


def test_a_superlink_that_was_never_there_is_an_error_at_once(served, refused):
    with refused(RunError, "'fake' took no run", "connection refused"):
        served(Attempt(accepts=False))


def test_a_superlink_that_is_away_for_a_while_is_waited_for(served):
    away = Attempt(accepts=False)
    served(Attempt(("start",), None), away, away, Attempt(("resume", "finished")))
    assert served.events == ["start", "resume", "finished"]
    assert len(served.lines) == 1


def test_a_superlink_that_stays_away_is_an_error(served, refused, monkeypatch):
    monkeypatch.setattr(serving, "WAIT_SECONDS", 0.0)
    with refused(RunError, "took no run"):
        served(Attempt(("start",), None), Attempt(accepts=False))


def test_after_the_last_restart_the_error_says_how_to_go_on(served, refused):
    with refused(RunError, "(restarts: 1)", "killed", f"wash-fl serve --resume {served.folder}"):
        served(Attempt(("start",)), Attempt(("resume",)), restarts=1)
    assert len(served.control.streams) == 2


def test_without_restarts_the_first_death_is_the_end(served, refused):
    with refused(RunError, "(restarts: 0)"):
        served(Attempt(("start",)), restarts=0)


def test_an_interrupted_run_is_stopped_at_the_superlink_too(served):
    def show(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    served.show = show
    with pytest.raises(KeyboardInterrupt):
        served(Attempt(("start",), lasts=True))
    assert served.control.calls == ["stop 0"]


@pytest.mark.parametrize(
    ("later", "calls"),
    [
        (RunStatus("pending", ""), ["stop 0"]),
        (RunStatus("running", ""), ["stop 0"]),
        (RunStatus("finished:failed", "it ended"), []),
        (None, ["stop 0"]),
    ],
)
def test_a_run_that_was_left_when_the_superlink_was_away_is_ended_before_another_is_submitted(
    served, later, calls
):
    # It would else be started beside the new one, by the launcher that is back as well.
    served(Attempt((), None, later=later), Attempt(("start", "finished")))
    assert served.control.calls == calls
    assert len(served.control.streams) == 2


def test_nothing_is_submitted_while_the_superlink_does_not_say_what_became_of_the_run_before(
    served, refused, monkeypatch
):
    def away(self: FakeControl) -> set[str]:
        raise RunError("it is away.")

    monkeypatch.setattr(serving, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(FakeControl, "online", away)
    with refused(RunError, "took no run", "it is away"):
        served(Attempt((), None), Attempt(("start", "finished")))
    assert len(served.control.streams) == 1


def test_a_serverapp_that_does_not_end_is_not_joined_by_another(served, refused, monkeypatch):
    monkeypatch.setattr(serving, "END_SECONDS", 0.3)
    app = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with refused(RunError, f"process {app.pid}", "two must not work on one run", "--resume"):
            served(Attempt(({"event": "start", "pid": app.pid},)))
    finally:
        app.kill()
        app.wait()
    assert len(served.control.streams) == 1
