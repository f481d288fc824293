"""A launcher that does not run is named, once, with what to do; and so is a run that nothing starts."""

from pathlib import Path

import pytest

from wash_fl.deploy import launchers
from wash_fl.deploy.control import Control, RunStatus
from wash_fl.deploy.launchers import LauncherWatch, missing_launchers, what_is_missing
from wash_fl.errors import RunError

PARTS = ("superlink", "superexec", "supernode 0", "superexec 0", "supernode 1", "superexec 1")
WHOLE = {role: [number] for number, role in enumerate(PARTS)}
FLEET = Path("/srv/fleet")


def without(*roles: str) -> dict[str, list[int]]:
    return {role: pids for role, pids in WHOLE.items() if role not in roles}


@pytest.mark.parametrize(
    ("running", "missing"),
    [
        (WHOLE, []),
        (without("superexec"), ["superexec"]),
        (without("superexec 1"), ["superexec 1"]),
        # Whose part is gone is not missing.
        (without("supernode 1", "superexec 1"), []),
        ({}, []),
    ],
)
def test_a_launcher_is_missing_if_its_part_runs_and_it_does_not(running, missing):
    assert missing_launchers(running) == missing
    assert len(what_is_missing(running, FLEET)) == len(missing)


def test_what_is_missing_is_said_with_what_to_do():
    (server,) = what_is_missing(without("superexec"), FLEET)
    assert "the server's launcher (flower-superexec)" in server
    assert server.endswith("wash-fl fleet restart superlink --dir /srv/fleet")
    (node,) = what_is_missing(without("superexec 1"), FLEET)
    assert "node 1's launcher" in node and node.endswith("wash-fl fleet restart 1 --dir /srv/fleet")
    # One that is looked after comes back by itself.
    (node,) = what_is_missing(without("superexec 1") | {"supervisor 1": [9]}, FLEET)
    assert node.endswith("it is being started again")


class ByHand:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Superlink(Control):
    """A SuperLink that answers with what it is given."""

    def __new__(cls, *answers: str) -> "Superlink":
        return object.__new__(cls)

    def __init__(self, *answers: str) -> None:
        super().__init__("fleet", {})
        object.__setattr__(self, "answers", list(answers))
        object.__setattr__(self, "questions", [])

    def status(self, run: int) -> RunStatus:
        self.questions.append(run)
        answer = self.answers.pop(0)
        if not answer:
            raise RunError("it does not answer.")
        return RunStatus(answer, "")


class Watching:
    """A watch, what it says, and what it sees."""

    def __init__(self, *answers: str) -> None:
        self.clock, self.lines, self.missing = ByHand(), [], []
        self.superlink = Superlink(*answers)
        self.watch = LauncherWatch(
            self.superlink, self.lines.append, lambda: self.missing, "turn it off and on.", self.clock
        )

    def waits(self, seconds: float) -> list[str]:
        """Look five times a second for so long, and return what is said meanwhile."""
        before = len(self.lines)
        until = self.clock.time + seconds
        while self.clock.time < until:
            self.watch.check()
            self.clock.sleep(0.2)
        return self.lines[before:]


def test_a_missing_launcher_is_said_within_ten_seconds_and_once():
    watching = Watching()
    assert watching.waits(30) == []
    watching.missing = ["node 1 has none"]
    assert watching.waits(2 * launchers.LOOK_SECONDS + 0.5) == ["node 1 has none"]
    assert watching.waits(600) == []
    # And again if it is missing another time.
    watching.missing = []
    assert watching.waits(30) == []
    watching.missing = ["node 1 has none"]
    assert watching.waits(30) == ["node 1 has none"]


def test_nothing_is_said_of_one_that_is_there_again_at_the_next_look():
    watching = Watching()
    watching.missing = ["node 1 has none"]
    assert watching.waits(launchers.LOOK_SECONDS - 1) == []
    watching.missing = []
    assert watching.waits(60) == []


def test_a_run_that_nothing_starts_is_said_within_half_a_minute_with_what_to_do():
    watching = Watching("pending")
    watching.watch.submitted(7)
    (line,) = watching.waits(25)
    assert "does not start it" in line and "flower-superexec" in line and line.endswith("turn it off and on.")
    assert watching.superlink.questions == [7]
    assert watching.waits(600) == []


def test_a_run_that_starts_is_not_asked_after():
    watching = Watching("starting", "", "running")
    watching.watch.submitted(7)
    assert watching.waits(25) == []
    watching.watch.started()
    assert watching.waits(600) == []
    assert watching.superlink.questions == [7, 7]


def test_where_processes_are_seen_to_be_missing_flower_is_not_asked():
    watching = Watching()
    watching.watch.submitted(7)
    watching.missing = ["the server has none"]
    assert watching.waits(60) == ["the server has none"]
    assert watching.superlink.questions == []
