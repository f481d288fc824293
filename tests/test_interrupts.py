"""A command that is told to end, by whatever signal, ends what it has started first."""

import multiprocessing.resource_tracker
import multiprocessing.util
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from wash_fl.lab.pools import pool_of
from wash_fl.system.interrupts import interruptible, uninterrupted

WAIT = 240.0


@pytest.fixture(autouse=True)
def hangups_are_heard():
    """Under nohup they are not, in whatever it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_the_next_ones_do_not_disturb_the_end(number):
    before = signal.getsignal(number)
    has_ended = False
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with interruptible():
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(signal.SIGTERM)
                has_ended = True
    assert has_ended
    assert signal.getsignal(number) is before


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_signals_are_left_as_they_are():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with interruptible():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_the_end_of_what_must_not_be_half_done(number):
    before, is_finished = signal.getsignal(number), False
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with interruptible():
            with uninterrupted():
                signal.raise_signal(number)
                is_finished = True
            raise AssertionError("it went on")
    assert is_finished
    assert signal.getsignal(number) is before


def test_what_fails_meanwhile_gives_way_to_the_signal():
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with interruptible(), uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("of no interest now")


def test_an_interruption_while_a_process_starts_lets_it_start(monkeypatch, capfd):
    """A process whose parent is gone before it was told what to do says so, with a traceback."""
    start = multiprocessing.util.spawnv_passfds
    started: list[psutil.Process] = []

    def start_and_interrupt(*arguments: Any) -> int:
        started.append(psutil.Process(start(*arguments)))
        signal.raise_signal(signal.SIGTERM)
        return started[-1].pid

    multiprocessing.resource_tracker.ensure_running()
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", start_and_interrupt)
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with interruptible(), pool_of(1) as pool:
            pool.submit(os.getpid)
    assert len(started) == 1
    assert psutil.wait_procs(started, timeout=WAIT)[1] == []
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_command_has_the_status_of_an_interruption(wash, monkeypatch, number):
    def examine(*arguments: Any, **options: Any) -> None:
        signal.raise_signal(number)
        raise AssertionError("it went on")

    monkeypatch.setattr("wash_fl.doctor.examine", examine)
    before = signal.getsignal(number)
    assert wash("doctor").status == 130
    assert signal.getsignal(number) is before


def test_who_waits_for_a_pool_and_is_interrupted_ends_its_processes_at_once():
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with pool_of(2) as pool:
            pool.submit(time.sleep, WAIT)
            pool.submit(time.sleep, WAIT)
            while len(pool._processes) < 2:
                time.sleep(0.01)
            workers = [psutil.Process(pid) for pid in pool._processes]
            raise KeyboardInterrupt
    assert time.monotonic() - begin < WAIT / 4
    assert psutil.wait_procs(workers, timeout=WAIT)[1] == []


def test_a_pool_that_is_left_in_peace_does_its_work_to_the_end():
    with pool_of(1) as pool:
        future = pool.submit(os.getpid)
    assert future.result() != os.getpid()


def started_by(mark: str) -> list[psutil.Process]:
    """Return all that inherited a mark, whoever its parent is now."""
    results = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("WASH_FL_TEST") == mark and process.status() != psutil.STATUS_ZOMBIE:
                results.append(process)
    return results


def says(process: psutil.Process, words: str) -> bool:
    try:
        return words in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "started"),
    [
        pytest.param("bench memory", "import torch", marks=pytest.mark.long),
        pytest.param("bench memory", "flower-supernode", marks=pytest.mark.long),
        pytest.param("bench memory", "flower-superexec", marks=pytest.mark.long),
        pytest.param("bench stream --quick", "forkserver", marks=pytest.mark.long),
        ("bench faults --examples 1000 --workers 2", "spawn_main"),
        ("doctor", "wash_fl.doctor.probe"),
        pytest.param("check digits", "wash_fl.checks.twin", marks=pytest.mark.long),
    ],
)
def test_a_command_that_is_told_to_end_leaves_no_process(tmp_path: Path, command, started):
    mark = uuid.uuid4().hex
    running = subprocess.Popen(
        [sys.executable, "-m", "wash_fl", *command.split()],
        cwd=tmp_path,
        env=os.environ | {"WASH_FL_TEST": mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + WAIT
        while not any(says(each, started) for each in started_by(mark)):
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        running.send_signal(signal.SIGTERM)
        _, printed = running.communicate(timeout=WAIT)
        assert running.returncode == 130, printed
        assert "Traceback" not in printed
        assert psutil.wait_procs(started_by(mark), timeout=WAIT / 8)[1] == []
    finally:
        for each in started_by(mark):
            each.kill()
