"""A launcher that dies is there again: real processes stand for Flower's, and start one as they do."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from wash_fl.deploy import supervisor

WAIT = 60.0

PART = """\
import signal, subprocess, sys, time
from pathlib import Path
here = Path(__file__).parent
asked = []
def leave(number, frame):
    asked.append(number)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGTERM, leave)
with (here / "starts").open("a") as file:
    print(*sys.argv[1:], file=file)
if (here / "refused").exists():
    (here / "refused").unlink()
    sys.exit(3)
subprocess.Popen([sys.executable, str(here / "flower-superexec"), "--parent-pid", "1"])
while not asked:
    time.sleep(0.05)
time.sleep(0.5)
(here / "left").touch()
"""
LAUNCHER = """\
import os, time
from pathlib import Path
here = Path(__file__).parent
with (here / "launches").open("a") as file:
    print(os.getpid(), file=file)
if (here / "hopeless").exists():
    os._exit(1)
time.sleep(600)
"""


class Machine:
    """A folder in which a part and its launcher are installed, and the supervisor that starts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, code in (
            (supervisor.SUPERLINK, PART),
            (supervisor.SUPERNODE, PART),
            (supervisor.LAUNCHER, LAUNCHER),
        ):
            (folder / name).write_text(f"#!{sys.executable}\n{code}")
            (folder / name).chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, part: str, *options: str) -> "subprocess.Popen[bytes]":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wash_fl.deploy.supervisor", str(self.folder / part), *options],
            env=os.environ | {"FLWR_HOME": str(self.folder / "home")},
        )
        return self.process

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def launchers(self, count: int) -> list[int]:
        """Wait until so many have been started, and return their processes."""
        eventually(lambda: len(self.lines("launches")) >= count)
        # Looked for again and again, so that each has been seen.
        time.sleep(2 * supervisor.LOOK_SECONDS)
        return [int(line) for line in self.lines("launches")]


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    process = machine.process
    if process is not None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(WAIT)
    for pid in machine.lines("launches"):
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def part_of(process: "subprocess.Popen[bytes]") -> psutil.Process:
    names = {supervisor.SUPERLINK, supervisor.SUPERNODE}
    (part,) = (
        each
        for each in psutil.Process(process.pid).children()
        if names & {Path(word).name for word in each.cmdline()[:2]}
    )
    return part


def test_a_superlinks_launcher_is_started_again_as_it_was_and_the_superlink_goes_on(machine):
    process = machine.start(supervisor.SUPERLINK, "--port", "1")
    (first,) = machine.launchers(1)
    part, command = part_of(process), psutil.Process(first).cmdline()
    os.kill(first, signal.SIGKILL)
    second = machine.launchers(2)[1]
    eventually(lambda: psutil.Process(second).cmdline() == command)
    assert part.is_running() and part_of(process) == part
    assert machine.lines("starts") == ["--port 1"]
    # And the one that it has started itself, too.
    os.kill(second, signal.SIGKILL)
    machine.launchers(3)
    assert machine.lines("starts") == ["--port 1"]


def test_a_supernode_whose_launcher_died_is_started_again_after_it_has_taken_its_leave(machine):
    process = machine.start(supervisor.SUPERNODE, "--port", "1")
    unpacked = machine.folder / "home" / "apps" / "half"
    unpacked.mkdir(parents=True)
    (first,) = machine.launchers(1)
    part = part_of(process)
    os.kill(first, signal.SIGKILL)
    machine.launchers(2)
    assert machine.lines("starts") == ["--port 1"] * 2
    assert part_of(process) != part
    # It was asked, not killed: the SuperLink would not let it in again for a minute.
    assert (machine.folder / "left").exists()
    assert not unpacked.exists()


def test_a_supernode_that_is_not_let_in_again_at_once_is_started_until_it_is(machine):
    machine.start(supervisor.SUPERNODE)
    (first,) = machine.launchers(1)
    (machine.folder / "refused").touch()
    os.kill(first, signal.SIGKILL)
    machine.launchers(2)
    assert len(machine.lines("starts")) == 3


def test_a_launcher_that_dies_again_and_again_is_not_started_all_the_time(machine):
    machine.start(supervisor.SUPERLINK)
    (first,) = machine.launchers(1)
    (machine.folder / "hopeless").touch()
    os.kill(first, signal.SIGKILL)
    machine.launchers(2)
    begin = time.monotonic()
    machine.launchers(4)
    # Two looks each time, and pauses of 2 and 4 seconds; the last two seconds are the test's own.
    assert time.monotonic() - begin > 8.0


@pytest.mark.parametrize("part", [supervisor.SUPERLINK, supervisor.SUPERNODE])
def test_when_the_part_itself_ends_so_does_the_supervisor_with_its_status(machine, part):
    process = machine.start(part)
    machine.launchers(1)
    part_of(process).kill()
    assert process.wait(WAIT) != 0
    assert len(machine.lines("starts")) == 1


def test_a_supervisor_that_is_stopped_takes_its_part_along_and_starts_nothing(machine):
    process = machine.start(supervisor.SUPERLINK)
    machine.launchers(1)
    part = part_of(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == 0
    assert not part.is_running()
    assert (machine.folder / "left").exists()
    assert len(machine.lines("launches")) == 1


def test_a_part_that_was_asked_with_the_supervisor_is_not_asked_twice(machine):
    process = machine.start(supervisor.SUPERNODE)
    machine.launchers(1)
    # As who stops a service does: a second SIGTERM would end Flower before it has taken its leave.
    part_of(process).terminate()
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == 0
    assert (machine.folder / "left").exists()


def test_a_launcher_of_somebody_elses_is_not_missed(machine):
    process = machine.start(supervisor.SUPERNODE, "--isolation", "process")
    (first,) = machine.launchers(1)
    os.kill(first, signal.SIGKILL)
    time.sleep(4 * supervisor.LOOK_SECONDS)
    assert process.poll() is None
    assert len(machine.lines("launches")) == 1


@pytest.mark.parametrize("command", [[], ["ls"], ["/bin/flwr-clientapp"]])
def test_what_is_no_part_of_a_fleet_is_refused(command, capsys):
    assert supervisor.main(command) == supervisor.USAGE
    line = capsys.readouterr().err
    assert line.startswith("wash_fl: error: ") and len(line.splitlines()) == 1
    assert supervisor.SUPERNODE in line


def test_a_part_that_is_not_installed_is_said_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    assert supervisor.main([str(tmp_path / supervisor.SUPERNODE)]) == supervisor.USAGE
    line = capsys.readouterr().err
    assert "cannot start" in line and len(line.splitlines()) == 1


def test_a_supernodes_clientapps_come_by_way_of_the_program_that_lets_one_work_at_a_time(tmp_path):
    place = Path(supervisor.one_at_a_time(tmp_path / "a home"))
    script = place / "flwr-clientapp"
    assert os.access(script, os.X_OK)
    command = shlex.split(script.read_text().splitlines()[1])
    assert command[1].startswith(sys.executable)
    assert command[-1] == "$@" and command[-2] == str(Path(sys.executable).with_name("flwr-clientapp"))
    assert all(Path(word).exists() for word in command[1:-1] if word.startswith("/"))
