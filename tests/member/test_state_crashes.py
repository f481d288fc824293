"""A member's files when a process is killed, or the disk is full, at any call to the operating system."""

import errno
import io
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.core.identity import weights_sha256
from wash_fl.core.schedule import Schedule
from wash_fl.errors import StateError
from wash_fl.member.member import Member
from wash_fl.member.snapshot import Progress, Snapshot
from wash_fl.member.state import FILE, PREVIOUS, FileStore

RUN = b"\xcd" * 16

CALLS = [(os, name) for name in ("open", "close", "fsync", "replace", "unlink", "mkdir")] + [(io, "open")]
"""Everything that saving asks the operating system for, but for the writing itself."""


def snapshot_of(number: int, *, joined: int = 0) -> Snapshot:
    """A member after so many rounds; another one for another number, in every tensor."""
    torch.manual_seed(number)
    model = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.autograd.backward(model(torch.randn(8, 40)).square().mean())
    optimizer.step()
    schedule = Schedule(ExchangeConfig(p=0.5, mix="shuffle", schedule="constant"))
    member = Member(model, optimizer, index=0, seed=1, schedule=schedule)
    progress = Progress(
        run=RUN.hex(),
        member=0,
        layout=member.layout.fingerprint.hex(),
        settings="{}",
        initial="",
        round=number,
        joined=joined,
    )
    return Snapshot.of(member, progress, member.offer(number))


def hash_of(snapshot: Snapshot) -> str:
    assert snapshot.offer is not None
    tensors = {f"model.{name}": each.numpy() for name, each in snapshot.model.items()}
    for index, entries in snapshot.optimizer["state"].items():
        tensors |= {f"{index}.{key}": each.numpy() for key, each in entries.items()}
    tensors["offer"] = snapshot.offer
    return f"{weights_sha256(tensors)} {sorted(asdict(snapshot.progress).items())}"


def loaded(folder: Path) -> str:
    snapshot = FileStore(folder, RUN, 0).load()
    return "" if snapshot is None else hash_of(snapshot)


def at_call(number: int, act: Callable[[], None], *, after: bool, patch: pytest.MonkeyPatch) -> list[str]:
    """Act at the n-th call to the operating system, before or after it is done; return the calls made."""
    made: list[str] = []

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            made.append(name)
            mine = len(made) == number
            if mine and not after:
                act()
            try:
                return call(*args, **options)
            finally:  # also if it failed: a folder that is there already is no error
                if mine and after:
                    act()

        return wrapper

    for module, name in CALLS:
        patch.setattr(module, name, watched(f"{module.__name__}.{name}", getattr(module, name)))
    return made


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_in_child(action: Callable[[], None]) -> int:
    """Run something in a process of its own; return 0, 1 for an error, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def old_and_new(tmp_path: Path) -> tuple[FileStore, str, Snapshot]:
    """A store with two states, the hash of the last, and a snapshot that is to be saved."""
    store = FileStore(tmp_path, RUN, 0)
    for number in (1, 2):
        store.save(snapshot_of(number))
    # As a writer leaves it that was killed: the next one has to remove it.
    store.path.with_name(f".{FILE}.00.part").write_bytes(b"half")
    return store, loaded(tmp_path), snapshot_of(3)


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_writer_killed_at_any_call_leaves_exactly_the_old_state_or_exactly_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool, anew: bool
) -> None:
    found: list[str] = []
    snapshot = snapshot_of(3, joined=2)  # not in the child: torch may have no gradients after a fork
    for number in range(1, 40):
        folder = tmp_path / str(number)
        store = FileStore(folder, RUN, 0)
        for before in (snapshot_of(1), snapshot_of(2)):
            store.save(before)
        store.path.with_name(f".{FILE}.00.part").write_bytes(b"half")
        old, new = hash_of(snapshot_of(2)), hash_of(snapshot)

        def save(number: int = number, folder: Path = folder) -> None:
            at_call(number, kill, after=after, patch=monkeypatch)
            store = FileStore(folder, RUN, 0)
            store.load()
            store.save(snapshot, anew=anew)

        status = run_in_child(save)
        assert status in (0, -signal.SIGKILL)
        found.append(loaded(folder))
        assert found[-1] in (old, new), f"killed at call {number}"
        # The next process goes on, and what was left behind is gone.
        again = FileStore(folder, RUN, 0)
        again.load()
        again.save(snapshot_of(4))
        assert loaded(folder) == hash_of(snapshot_of(4))
        names = {each.name for each in store.path.parent.iterdir()}
        assert names == {FILE, PREVIOUS}
        if status == 0:
            break
    assert status == 0, "more calls than were tried"
    assert number > 8
    assert found[0] == old and found[-1] == new


def test_the_first_writer_killed_at_any_call_leaves_no_state_or_exactly_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    snapshot = snapshot_of(1)
    for number in range(1, 40):
        folder = tmp_path / str(number)

        def save(number: int = number, folder: Path = folder) -> None:
            at_call(number, kill, after=True, patch=monkeypatch)
            FileStore(folder, RUN, 0).save(snapshot)

        status = run_in_child(save)
        found.append(loaded(folder))
        if status == 0:
            break
    assert status == 0 and number > 8
    assert set(found) == {"", hash_of(snapshot)}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_writer_killed_by_the_kernel_in_the_middle_of_the_write_leaves_the_old_state(
    old_and_new: tuple[FileStore, str, Snapshot], share: float
) -> None:
    store, old, snapshot = old_and_new
    size = store.path.stat().st_size

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; so the kernel kills
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), resource.RLIM_INFINITY))
        store.save(snapshot)

    assert run_in_child(save) == -signal.SIGXFSZ
    leftovers = [each.stat().st_size for each in store.path.parent.glob(".*.part")]
    assert leftovers == [int(share * size)], "the write was not torn where it should be"
    folder = store.path.parents[2]
    assert loaded(folder) == old
    store.save(snapshot)
    assert loaded(folder) == hash_of(snapshot)
    assert list(store.path.parent.glob(".*.part")) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_at_any_call_is_a_clear_error_and_a_state_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Any, code: int
) -> None:
    reason = os.strerror(code)

    def fail() -> None:
        raise OSError(code, reason)

    failed: list[str] = []
    for number in range(1, 40):
        folder = tmp_path / str(number)
        store = FileStore(folder, RUN, 0)
        for before in (snapshot_of(1), snapshot_of(2)):
            store.save(before)
        store.load()
        with monkeypatch.context() as patch:
            made = at_call(number, fail, after=False, patch=patch)
            fails = _fails(store, refused, reason)
        if len(made) < number:
            break
        if made[number - 1] == "os.mkdir":  # the folder is there already
            continue
        assert fails, f"failed unnoticed at {made[number - 1]}, call {number}"
        failed.append(made[number - 1])
        # The new state is in its place before its folder is synced.
        renamed = made[:number].count("os.replace") == 2 and failed[-1] != "os.replace"
        assert loaded(folder) == hash_of(snapshot_of(3 if renamed else 2)), (
            f"failed at {failed[-1]}, call {number}"
        )
        assert list(store.path.parent.glob(".*.part")) in ([], _undeletable(store, failed[-1]))
        # With room on the disk again, it goes on.
        store.load()
        store.save(snapshot_of(3))
        assert loaded(folder) == hash_of(snapshot_of(3))
    assert len(failed) > 8
    assert {"os.open", "io.open", "os.fsync", "os.replace", "os.close"} <= set(failed)


def _fails(store: FileStore, refused: Any, reason: str) -> bool:
    """Whether saving is refused, in the words it should be; False if it succeeds."""
    try:
        store.save(snapshot_of(3))
    except StateError as error:
        with refused(StateError, str(store.path), reason, "state before it", "Free some space"):
            raise error
        return True
    return False


def _undeletable(store: FileStore, call: str) -> list[Path]:
    """What may be left behind if even removing it failed."""
    return list(store.path.parent.glob(".*.part")) if call in ("os.unlink", "os.open", "os.close") else []


def test_a_disk_that_fills_up_in_the_middle_of_the_write_is_a_clear_error_and_the_old_state_stays(
    old_and_new: tuple[FileStore, str, Snapshot],
) -> None:
    store, old, snapshot = old_and_new
    half = store.path.stat().st_size // 2

    def save() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, resource.RLIM_INFINITY))
        try:
            store.save(snapshot)
        except StateError as error:
            assert "cannot be written (File too large)" in str(error)
            assert np.isfinite(store.path.stat().st_size)
            os._exit(7)

    assert run_in_child(save) == 7
    assert list(store.path.parent.glob(".*.part")) == []
    assert loaded(store.path.parents[2]) == old


def test_the_content_is_on_the_disk_before_its_name_and_its_name_before_the_save_returns(
    old_and_new: tuple[FileStore, str, Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a killed process cannot show: after a power cut only what was synced is there.
    store, _, snapshot = old_and_new
    store.load()
    with monkeypatch.context() as patch:
        made = at_call(0, kill, after=False, patch=patch)
        store.save(snapshot)
    steps = [name for name in made if name in ("os.fsync", "os.replace")]
    first, last = steps.index("os.replace"), len(steps) - 1 - steps[::-1].index("os.replace")
    assert "os.fsync" in steps[:first]
    assert "os.fsync" in steps[last + 1 :]
    assert steps.count("os.replace") == 2
