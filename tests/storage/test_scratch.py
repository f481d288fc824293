"""Whole models that wait on the disk go with their process; if it was killed, with the next one."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.holding import end, hold_in_child
from wash_fl.storage import scratch
from wash_fl.storage.model_store import ModelStore
from wash_fl.storage.scratch import OWNER, PREFIX, UNFINISHED, remove_leftovers, scratch_folder


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_a_folder_is_its_owners_alone_and_goes_with_all_that_is_in_it(tmp_path):
    with scratch_folder(tmp_path) as folder:
        assert folder.parent == tmp_path and folder.name.startswith(PREFIX)
        assert folder.stat().st_mode & 0o777 == 0o700
        ModelStore(folder).put(0, {"weights": np.ones(3, np.float32)})
    assert names(tmp_path) == []
    with pytest.raises(RuntimeError), scratch_folder(tmp_path) as folder:
        raise RuntimeError
    assert names(tmp_path) == []


def test_what_a_killed_process_left_goes_with_the_next_and_what_a_live_one_has_stays(tmp_path):
    killed, alive = (hold_in_child(lambda: scratch_folder(tmp_path)) for _ in range(2))
    try:
        assert len(names(tmp_path)) == 2
        for folder in tmp_path.iterdir():
            ModelStore(folder).put(0, {"weights": np.ones(3, np.float32)})
        end(killed)
        with scratch_folder(tmp_path) as folder:
            assert len(names(tmp_path)) == 2 and folder.exists()
        (others,) = tmp_path.iterdir()
        assert sorted(path.name for path in others.iterdir()) == [OWNER, "0.safetensors"]
    finally:
        end(alive)
    assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == []


def test_one_that_nobody_has_locked_yet_is_left_alone_for_an_hour(tmp_path):
    fresh, old = tmp_path / f"{UNFINISHED}a", tmp_path / f"{UNFINISHED}b"
    for folder in (fresh, old):
        folder.mkdir()
    hours_ago = time.time() - 2 * scratch.UNFINISHED_SECONDS
    os.utime(old, (hours_ago, hours_ago))
    assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == [fresh.name]


def test_what_is_not_ours_is_not_touched(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in (elsewhere, tmp_path / f"{PREFIX}of-an-older-version"):
        folder.mkdir(exist_ok=True)
        (folder / "0.safetensors").touch()
    (elsewhere / OWNER).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}file").touch()
    assert remove_leftovers(tmp_path) == 0
    left_behind = tmp_path / f"{PREFIX}another"
    left_behind.mkdir()
    (left_behind / OWNER).touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert remove_leftovers(tmp_path) == 0
    monkeypatch.undo()
    assert remove_leftovers(tmp_path) == 1
    assert (elsewhere / "0.safetensors").exists()
