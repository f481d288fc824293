"""Each property of a machine that keeps it from joining is found, with what to do."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from wash_fl.doctor import machine
from wash_fl.doctor.machine import Memory

GLIBC = ("glibc", "2.36")
GB = 1_000_000_000

PI = """MemTotal:        3884380 kB
MemFree:         1012340 kB
MemAvailable:    3211000 kB
SwapTotal:       2097148 kB
SwapFree:        2000000 kB
HugePages_Total:       0
"""


def test_this_python_and_this_machine_are_fit():
    assert machine.python().level == "ok"
    assert machine.architecture().level == "ok"


def test_an_old_python_is_a_problem_and_a_newer_one_is_not():
    assert machine.python((3, 10, 12), "CPython").level == "problem"
    assert "3.11" in machine.python((3, 10, 12), "CPython").advice
    assert machine.python((3, 11, 0), "CPython").level == "ok"
    assert machine.python((3, 13, 5), "CPython").level == "ok"


def test_another_interpreter_is_a_problem():
    assert "CPython" in machine.python((3, 11, 9), "PyPy").advice


def test_a_32_bit_system_is_told_from_a_32_bit_system_under_a_64_bit_kernel():
    plain = machine.architecture("armv7l", 32, GLIBC)
    mixed = machine.architecture("aarch64", 32, GLIBC)
    assert plain.level == mixed.level == "problem"
    assert "under a 64-bit kernel" in mixed.detail and "under a 64-bit kernel" not in plain.detail


@pytest.mark.parametrize(
    ("name", "bits", "libc", "level", "part"),
    [
        ("aarch64", 64, GLIBC, "ok", "glibc 2.36"),
        ("aarch64", 64, ("glibc", "2.28"), "ok", "2.28"),
        ("aarch64", 64, ("glibc", "2.27"), "problem", "older than glibc 2.28"),
        ("aarch64", 64, ("", ""), "problem", "not glibc"),
        ("riscv64", 64, GLIBC, "warning", "nobody has tried"),
    ],
)
def test_what_there_are_wheels_for(name, bits, libc, level, part):
    finding = machine.architecture(name, bits, libc)
    assert finding.level == level
    assert part in finding.detail


def test_memory_is_read_as_linux_says_it(tmp_path):
    source = tmp_path / "meminfo"
    source.write_text(PI)
    assert machine.read_memory(source) == Memory(
        1024 * 3884380, 1024 * 3211000, 1024 * 2097148, 1024 * 2000000
    )


@pytest.mark.parametrize("text", ["", "MemTotal: many kB\n", "MemTotal:\n", "MemTotal: 1 kB\n"])
def test_memory_that_the_system_does_not_say_is_no_crash(tmp_path, text):
    source = tmp_path / "meminfo"
    source.write_text(text)
    assert machine.read_memory(source) is None
    assert machine.memory(None).level == "warning"


@pytest.mark.parametrize(
    ("memory", "level"),
    [
        (Memory(4 * GB, 3 * GB, 0, 0), "ok"),
        (Memory(GB, GB // 2, 0, 0), "warning"),
        (Memory(GB, GB // 2, 2 * GB, 2 * GB), "ok"),
        (Memory(8 * GB, GB // 2, 0, 0), "warning"),
        (Memory(15 * GB // 10, 12 * GB // 10, 0, 0), "warning"),
    ],
)
def test_little_memory_is_a_warning_and_swap_helps(memory, level):
    assert machine.memory(memory).level == level


@pytest.mark.parametrize(
    ("free", "level"), [(50 * GB, "ok"), (GB // 2, "warning"), (GB // 10, "problem"), (0, "problem")]
)
def test_the_disk_is_looked_at_where_members_are_kept(monkeypatch, tmp_path, free, level):
    paths = []

    def usage(path):
        paths.append(path)
        return namedtuple("Usage", "free")(free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert machine.disk(tmp_path / "not" / "there").level == level
    assert paths == [tmp_path]


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    assert machine.disk(file).level == "problem"
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    assert "chown" in machine.disk(Path(tmp_path)).advice
    # Nor one in another user's folder, of which not even that it exists can be seen.
    assert machine.disk(tmp_path / "members").level == "problem"


def test_a_folder_that_is_yet_to_be_made_need_not_be_in_a_folder_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.os, "access", lambda path, mode: mode == machine.os.X_OK)
    assert machine.disk(tmp_path / "members").level == "ok"
