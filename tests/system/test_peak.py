"""A program's peak memory is its own, however it ends, and it never outlives its time."""

import json
import subprocess
import sys
import time

import pytest

from wash_fl.system.peak import private, resident_peak, watch

pytestmark = pytest.mark.skipif(not resident_peak(), reason="only Linux says how much memory a process has")

MB = 1_000_000


def python(code: str, timeout: float = 60.0):
    return watch([sys.executable, "-c", code], timeout=timeout)


def test_what_a_program_prints_and_its_status_come_back():
    result = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.status, result.out, result.err, result.timed_out) == (3, "out\n", "err\n", False)


def test_the_peak_is_what_the_program_took_and_not_what_is_left():
    result = python("import time; x = b'a' * 200_000_000; del x; time.sleep(0.2)")
    assert 200 * MB < result.peak < 240 * MB


def test_a_small_program_of_a_large_one_counts_as_small():
    ballast = b"a" * (300 * MB)
    result = python("import time; time.sleep(0.2)")
    assert 0 < result.peak < 40 * MB
    assert len(ballast) < resident_peak()


def test_the_peak_is_exact_where_the_program_is_killed_in_an_instant():
    # From a small process, for the system's account begins with the peak of whoever started the program.
    killed = "import os; x = b'a' * 200_000_000; os.kill(os.getpid(), 9)"
    code = (
        "import json, sys; from wash_fl.system.peak import watch; "
        f"ended = watch([sys.executable, '-c', {killed!r}], timeout=60); "
        "print(json.dumps([ended.status, ended.peak]))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, peak = json.loads(process.stdout)
    assert status == -9
    assert 200 * MB < peak < 240 * MB


def test_a_program_that_takes_too_long_is_killed_with_what_it_started():
    began = time.monotonic()
    result = python(
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True); child.wait()",
        timeout=1.0,
    )
    assert result.timed_out and result.status == -9
    assert time.monotonic() - began < 20
    child = int(result.out)
    deadline = time.monotonic() + 10
    while resident_peak(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not resident_peak(child)


def test_private_memory_is_a_part_of_what_is_in_ram():
    assert 0 < private() <= resident_peak()


def test_a_process_that_is_gone_has_no_memory():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert resident_peak(process.pid) == 0
