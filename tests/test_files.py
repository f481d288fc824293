"""A file is either whole or not there, whatever interrupts the writing of it."""

import errno
import os
import stat
from pathlib import Path

import pytest

from wash_fl.files import replacing, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_content_takes_the_place_of_the_old_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_text(path, "old")
    write_text(path, "new ä")
    assert path.read_bytes() == "new ä".encode()
    assert names(path.parent) == ["file"]


def test_until_the_end_the_old_content_is_what_others_read(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with replacing(path) as scratch:
        scratch.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert scratch.parent == tmp_path, "a rename is atomic on one file system only"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError, ValueError])
def test_an_interruption_leaves_the_old_content_and_no_part(tmp_path, error):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(error), replacing(path) as scratch:
        scratch.write_bytes(b"ne")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_interrupted_first_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "file") as scratch:
        scratch.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_content_that_does_not_reach_the_disk_does_not_replace_what_did(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_error_names_the_file_that_was_to_be_written(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as caught:
        write_bytes(tmp_path / "folder", b"new")
    assert caught.value.filename in (str(tmp_path / "folder"), tmp_path / "folder")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError) as caught:
            write_bytes(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")
    assert names(tmp_path) == ["folder"]


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_it_returns(tmp_path, monkeypatch):
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        status = os.fstat(descriptor)
        order.append("folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} bytes")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        order.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_bytes(tmp_path / "file", b"content")
    assert order == ["7 bytes", "name", "folder"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_any_new_file_and_the_umask_is_not_touched(tmp_path, monkeypatch, umask):
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patched:
            # It is the process's: set for a moment by one thread, it is there for all of them.
            patched.delattr(os, "umask")
            write_bytes(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
