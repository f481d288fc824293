"""Flower's launcher is killed on a real fleet: it comes back, or is said to be missing; the run goes on."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wash_fl.deploy.launch import Fleet
from wash_fl.deploy.launchers import PENDING
from wash_fl.runs.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WAIT = 900.0
OPTIONS: dict[str, Any] = {
    "members": 2,
    "rounds": 3,
    "local-steps": 2,
    "train-examples": 200,
    "test-examples": 100,
    "p": 0.3,
    "mix": "average",
    "evaluate-every": 0,
    "batchnorm": "server",
    "round-timeout": 600.0,
    "start-timeout": 600.0,
}


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("launchers") / "fleet"
    with Fleet.up(folder, 2) as fleet:
        yield fleet
    assert fleet.pids() == {}


def is_whole(fleet: Fleet) -> bool:
    roles = fleet.pids()
    return {"superexec", "superexec 0", "superexec 1"} <= roles.keys()


def test_a_launcher_that_is_killed_is_there_again(fleet: Fleet) -> None:
    before = fleet.pids()
    fleet.kill("superexec")
    eventually(lambda: is_whole(fleet) and fleet.pids()["superexec"] != before["superexec"])
    # Nobody else has to connect again.
    assert fleet.pids()["superlink"] == before["superlink"]
    fleet.kill("superexec 1")
    eventually(lambda: is_whole(fleet) and fleet.pids()["superexec 1"] != before["superexec 1"])
    assert fleet.pids()["supernode 1"] != before["supernode 1"]
    eventually(lambda: len(fleet.control.online()) == 2)


class Serving:
    """``wash-fl serve`` in a process of its own, and when it said what."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        flags = [word for key, value in OPTIONS.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-u", "-m", "wash_fl", "serve", "--fleet", str(fleet.folder)]
        self.process = subprocess.Popen(
            [*command, "--run-name", name, *flags],
            cwd=fleet.folder.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[tuple[float, str]] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def says(self, words: str) -> float:
        """Wait until it has said so, and return when that was."""
        eventually(lambda: words in self.text or self.process.poll() is not None)
        assert words in self.text, self.text
        return next(when for when, line in self.lines if words in line)


def submitted_runs(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the runs of a SuperLink, once there is one: that a launcher is missing is said before."""
    deadline = time.monotonic() + 120
    while not (runs := fleet.control._ask("list")["runs"]) and time.monotonic() < deadline:
        time.sleep(1)
    return runs


@pytest.mark.long
def test_a_missing_launcher_is_said_within_half_a_minute_and_the_run_goes_on(fleet: Fleet) -> None:
    # Nobody looks after it any more.
    fleet.kill("supervisor")
    fleet.kill("superexec")
    command = [sys.executable, "-m", "wash_fl", "fleet", "status", "--dir", str(fleet.folder)]
    found = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    )
    assert found["missing"] == ["superexec"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"superexec +│ does not run", table)
    assert "the server's launcher (flower-superexec)" in table and "wash-fl fleet restart superlink" in table
    serving = Serving(fleet, "silent")
    try:
        submitted = serving.says("submitting the run")
        told = serving.says("the server's launcher (flower-superexec), which starts its apps, does not run")
        assert told - submitted < 30
        assert f"wash-fl fleet restart superlink --dir {fleet.folder}" in serving.text
        # What `serve` would go by on a fleet whose processes it does not know.
        runs = submitted_runs(fleet)
        assert [fleet.control.status(int(run["run-id"])).status for run in runs] == [PENDING]
        fleet.restart_superlink()
        serving.says("round 1/3")
        # In the middle of a round, most likely: a ClientApp dies with it.
        fleet.kill("superexec 1")
        serving.process.wait(900)
    finally:
        if serving.process.poll() is None:
            serving.process.kill()
            serving.process.wait()
        serving.thread.join(10)
    assert serving.process.returncode == 0, serving.text
    run = RunFolder.open(Path(fleet.folder.parent) / "runs" / "silent")
    assert run.summary()["members"] == [0, 1]
