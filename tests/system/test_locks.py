"""One process at a time holds a lock, a dead one keeps nobody out, and without locks nobody goes on."""

import errno
import fcntl
import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.holding import end, hold_in_child
from wash_fl.clock import Clock
from wash_fl.errors import StateError
from wash_fl.system import locks
from wash_fl.system.locks import is_locked, locked

BUSY = "it is in use."


def exclusive(path: Path, *, wait: float, **more: Any) -> AbstractContextManager[None]:
    """Return a lock as a member holds it: of a file that stays."""
    return locked(path, busy=BUSY, wait=wait, place="state-dir", kind=StateError, **{"keep": True} | more)


class Turning(Clock):
    """Moves when somebody sleeps; at a given time something happens."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept = 0
        self.at: dict[int, object] = {}

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.slept += 1
        if self.slept in self.at:
            self.at[self.slept]()  # type: ignore[operator]


def test_a_lock_that_another_process_holds_is_refused_after_the_wait(tmp_path, refused):
    path = tmp_path / "deep" / "lock"
    child = hold_in_child(lambda: exclusive(path, wait=0))
    clock = Turning()
    try:
        with (
            refused(StateError, BUSY),
            exclusive(path, wait=600.0, clock=clock),
        ):
            raise AssertionError("both hold it")
    finally:
        end(child)
    assert 600.0 <= clock.time < 601.0


def test_a_lock_is_free_as_soon_as_the_process_that_held_it_is_killed(tmp_path):
    path = tmp_path / "lock"
    child = hold_in_child(lambda: exclusive(path, wait=0))
    clock = Turning()
    clock.at[3] = lambda: end(child)
    with exclusive(path, wait=600.0, clock=clock):
        assert clock.slept == 3


@pytest.mark.parametrize("keep", [True, False])
def test_a_lock_is_free_after_an_error_and_kept_from_nobody_afterwards(tmp_path, refused, keep):
    path = tmp_path / "lock"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), exclusive(path, wait=0, keep=keep):
            raise KeyboardInterrupt
        assert path.exists() == keep
    with exclusive(path, wait=0), refused(StateError, BUSY), exclusive(path, wait=0):
        raise AssertionError("both hold it")


def test_whether_a_lock_is_held_is_told_and_nothing_is_left_of_the_look(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    child = hold_in_child(lambda: exclusive(path, wait=0))
    try:
        assert is_locked(path) and is_locked(path)
    finally:
        end(child)
    assert path.exists() and not is_locked(path) and not path.exists()


@pytest.mark.parametrize("keep", [True, False])
def test_a_child_that_inherited_the_lock_does_not_keep_it(tmp_path, keep):
    path = tmp_path / "lock"
    reading, writing = os.pipe()
    with exclusive(path, wait=0, keep=keep):
        child = os.fork()
        if child == 0:
            os.write(writing, b"here")
            signal.pause()
            os._exit(0)
        assert os.read(reading, 4) == b"here"
    try:
        with exclusive(path, wait=0):
            pass
    finally:
        end(child)
        os.close(reading)
        os.close(writing)


def test_who_waits_for_a_lock_whose_file_is_removed_gets_that_of_the_new_file(tmp_path, refused):
    # As when a member leaves while another message for it waits: a lock on the removed file locks nothing.
    path = tmp_path / "member-0" / "lock"
    clock = Turning()
    holder = exclusive(path, wait=0)
    holder.__enter__()

    def leave() -> None:
        path.unlink()
        path.parent.rmdir()
        holder.__exit__(None, None, None)

    clock.at[2] = leave
    with exclusive(path, wait=600.0, clock=clock):
        assert path.exists()
        with refused(StateError, BUSY), exclusive(path, wait=0):
            raise AssertionError("both hold it")


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_not_taken_for_one(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    real, opened = os.open, []

    def open_and_lose(*args: object, **options: object) -> int:
        descriptor = real(*args, **options)  # type: ignore[arg-type]
        opened.append(descriptor)
        if len(opened) == 1:
            path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    with exclusive(path, wait=0):
        assert len(opened) == 2
        assert os.path.samestat(os.fstat(opened[1]), path.stat())


def test_a_folder_that_cannot_be_used_is_a_clear_error(tmp_path, refused):
    (tmp_path / "file").write_text("no folder")
    with (
        refused(StateError, str(tmp_path / "file"), "local disk"),
        exclusive(tmp_path / "file" / "lock", wait=0),
    ):
        raise AssertionError("locked")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_an_error_and_none_is_made_up(tmp_path, refused, monkeypatch, number):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    for keep in (True, False):
        with (
            refused(
                StateError, f"cannot lock {tmp_path}", "choose a state-dir on a local disk with file locks"
            ),
            exclusive(tmp_path / "lock", wait=600.0, keep=keep),
        ):
            raise AssertionError("locked")


def test_where_the_system_has_no_flock_it_goes_without(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_fcntl", None)
    with exclusive(tmp_path / "lock", wait=0), exclusive(tmp_path / "lock", wait=0):
        assert not (tmp_path / "lock").exists() and not is_locked(tmp_path / "lock")
