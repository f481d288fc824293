"""The tests that nothing of a command runs on would see it if something did."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from tests.descendants import watched

WAIT = 240.0

# A daemon as Ray's are: of a session of its own, without the environment of its parent, which is gone soon.
PARENT = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={}, start_new_session=True)
sys.stdin.read()
"""


def wait_until(there: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_daemon_that_hides_is_seen_and_a_stranger_is_not():
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    daemons: list[psutil.Process] = []
    try:
        with watched() as descendants:
            parent = subprocess.Popen(
                [sys.executable, "-c", PARENT], env=descendants.environment, stdin=subprocess.PIPE
            )
            wait_until(lambda: len(descendants.processes) == 2)
            daemons = [each for each in descendants.processes if each.pid != parent.pid]
            parent.communicate(timeout=WAIT)
        (line,) = descendants.alive()
        assert line.endswith("import time; time.sleep(600)")
        (daemon,) = daemons
        assert daemon.pid != stranger.pid
        daemon.kill()
        wait_until(lambda: descendants.alive() == [])
    finally:
        stranger.kill()
        stranger.wait()
        for each in daemons:
            with suppress(psutil.NoSuchProcess):
                each.kill()
