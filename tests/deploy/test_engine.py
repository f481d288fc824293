"""A simulation engine that does not start is said to have not, with its reason and its log."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from wash_fl.deploy import engine, processes
from wash_fl.deploy.engine import LOOK_SECONDS, START_SECONDS, Watch, failure
from wash_fl.errors import RunError

CRASH = """
\x1b[91mERROR \x1b[0m:     An exception occured!! The node timed out during startup. Raylet failed.
\x1b[91mERROR \x1b[0m:     Traceback (most recent call last):
  File "raybackend.py", line 102, in init_ray
RuntimeError: The node timed out during startup. Raylet failed.
\x1b[91mERROR \x1b[0m:     An exception occurred !! Simulation Runtime crashed.
RuntimeError: An error was encountered. Ending simulation.
"""


def test_the_first_reason_of_a_crash_counts_and_not_what_flower_makes_of_it(tmp_path):
    log = tmp_path / "flower.log"
    log.write_text(CRASH)
    assert failure(log).endswith("Ray, failed: The node timed out during startup. Raylet failed")


@pytest.mark.parametrize("text", ["", "ServerApp raised an exception\n", None])
def test_a_log_without_a_crash_of_the_engine_says_nothing_about_it(tmp_path, text):
    log = tmp_path / "flower.log"
    if text is not None:
        log.write_text(text)
    assert failure(log) == ""


class Machine:
    """A clock that is set by hand, and processes that are made up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 0.0
        self.looks = 0
        self.commands: list[list[str]] = []
        monkeypatch.setattr(processes, "marked", self.marked)

    def marked(self, mark: str) -> list[SimpleNamespace]:
        assert mark == "mine"
        self.looks += 1
        return [SimpleNamespace(cmdline=lambda command=command: command) for command in self.commands]

    def watch(self) -> Watch:
        return Watch("mine", Path("runs/one/flower.log"), now=lambda: self.time)

    def let_pass(self, watch: Watch, seconds: float) -> None:
        end = self.time + seconds
        while self.time < end:
            self.time += 1.0
            watch.check()


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def test_an_engine_that_never_starts_a_worker_is_given_up(machine, refused):
    machine.commands = [["flwr-simulation"], ["/usr/bin/gcs_server", "--log_dir=ray"], []]
    watch = machine.watch()
    machine.let_pass(watch, START_SECONDS)
    assert machine.looks <= START_SECONDS / LOOK_SECONDS, "it is seldom looked for"
    with refused(RunError, "Ray", "no worker in 300 s", "runs/one/flower.log", "real fleet"):
        machine.let_pass(watch, 2 * LOOK_SECONDS)


@pytest.mark.parametrize("command", [["ray::IDLE"], ["python", "/site-packages/ray/default_worker.py"]])
def test_an_engine_that_has_started_a_worker_is_not_looked_at_again(machine, command):
    watch = machine.watch()
    machine.let_pass(watch, START_SECONDS - LOOK_SECONDS)
    machine.commands = [command]
    machine.let_pass(watch, LOOK_SECONDS)
    machine.commands, looks = [], machine.looks
    machine.let_pass(watch, 3 * START_SECONDS)
    assert machine.looks == looks


def test_a_process_that_has_ended_meanwhile_is_passed_over(machine, monkeypatch):
    import psutil

    def no_process() -> list[str]:
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(processes, "marked", lambda mark: [SimpleNamespace(cmdline=no_process)])
    assert not engine._has_worker("mine")
