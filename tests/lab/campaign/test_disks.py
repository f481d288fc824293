"""Bits that are flipped, and small disks, where one may mount them."""

import errno
import random
import subprocess
import sys

import pytest

from wash_fl.errors import RunError
from wash_fl.lab.campaign.disks import flip_a_bit


def test_exactly_one_bit_is_flipped_and_the_same_one_again(tmp_path):
    path = tmp_path / "file"
    before = bytes(range(256))
    path.write_bytes(before)
    place = flip_a_bit(path, random.Random(5))
    after = path.read_bytes()
    changes = [(a ^ b).bit_count() for a, b in zip(before, after, strict=True)]
    assert sum(changes) == 1 and changes[place] == 1
    flip_a_bit(path, random.Random(5))
    assert path.read_bytes() == before


def test_a_file_without_bits_is_refused(tmp_path, refused):
    (tmp_path / "empty").write_bytes(b"")
    for name in ("empty", "absent"):
        with refused(RunError, f"{name} has no bit"):
            flip_a_bit(tmp_path / name, random.Random(0))


def test_a_small_disk_is_full_or_read_only_when_it_is_said_and_nobody_else_sees_it(tmp_path):
    """In a process of its own, for its mounts are its own."""
    code = f"""
import errno
from pathlib import Path
from wash_fl.errors import RunError
from wash_fl.lab.campaign.disks import SmallDisk
from wash_fl.lab.network.namespaces import own_mounts
try:
    own_mounts()
    folder = Path({str(tmp_path)!r})
    disk = SmallDisk(folder)
except RunError as error:
    print("skip", error)
    raise SystemExit
def attempt():
    try:
        (folder / "state").write_bytes(bytes(100_000))
        return 0
    except OSError as error:
        return error.errno
results = [attempt()]
for begin, end in ((disk.fill, disk.empty), (disk.protect, disk.release)):
    begin()
    (folder / "state").unlink() if begin == disk.fill else None
    results.append(attempt())
    end()
    results.append(attempt())
disk.unmount()
print(results, list(folder.iterdir()))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if process.stdout.startswith("skip"):
        pytest.skip(process.stdout)
    words = [0, 0, 0, errno.EROFS, 0]
    assert process.stdout.strip() in (f"{words} []", f"{[0, errno.ENOSPC, *words[2:]]} []")
    assert list(tmp_path.iterdir()) == []
