"""`wash-fl compare` that is told to end leaves no worker behind."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

WAIT = 120.0


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    workers = []
    for each in process.children():
        # The check of the task has processes, too, which end meanwhile.
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(each.cmdline()):
                workers.append(each)
    return workers


def test_a_comparison_that_is_terminated_ends_its_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wash_fl", "compare", "-o", "c", "--methods", "isolated"]
    options = ["--rounds", "10000", "--seeds", "0,1", "--workers", "2"]
    with subprocess.Popen([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        process, until = psutil.Process(running.pid), time.monotonic() + WAIT
        try:
            while len(workers := workers_of(process)) < 2:
                assert running.poll() is None and time.monotonic() < until
                time.sleep(0.1)
        finally:
            running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=WAIT)
    assert running.returncode == 130
    assert "interrupted: the same command goes on." in said
    assert psutil.wait_procs(workers, timeout=WAIT)[1] == []
