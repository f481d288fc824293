"""What a fleet writes is its owner's alone, whatever the umask: other users of a machine read none of it."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wash_fl.config import RunConfig
from wash_fl.core.layout import layout_of
from wash_fl.deploy import processes
from wash_fl.deploy.submitting import keep_log
from wash_fl.files import private_folder, replacing
from wash_fl.flower.in_process import InProcessGrid
from wash_fl.member.log import Logs
from wash_fl.member.state import FileStore
from wash_fl.protocol.journal import Journal
from wash_fl.runs.folder import JOURNAL, LOG, RunFolder
from wash_fl.runs.job import run_job
from wash_fl.storage.sqlite_store import SqliteStore


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask {:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("only_trained", "umask")
def test_a_run_leaves_nothing_that_others_can_look_into(tmp_path: Path) -> None:
    from clients.client_app import app

    options = {"members": 2, "rounds": 1, "local-steps": 1, "train-examples": 100, "test-examples": 20}
    names = {"run-name": "one", "run-dir": str(tmp_path / "runs"), "keep-members": True}
    config = RunConfig.from_mapping(options | names)
    states = tmp_path / "states"
    run_job(InProcessGrid(app, 2, {**config.to_mapping(), "state-dir": str(states)}), config)
    run = RunFolder.open(tmp_path / "runs" / "one")
    assert mode(run.path) == 0o700
    assert mode(run.path / JOURNAL) == 0o600
    (of_run,) = states.iterdir()
    assert mode(of_run) == 0o700
    assert {mode(path) for path in of_run.iterdir()} == {0o700}
    files = list(of_run.rglob("*.safetensors"))
    assert len(files) >= 2 and {mode(path) for path in files} == {0o600}


@pytest.mark.usefixtures("umask")
def test_a_journal_has_its_secret_for_its_owner_alone_and_so_has_its_log(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    layout = layout_of([("a", (3,))]).fingerprint
    journal = Journal(SqliteStore.open(path, bytes(16), layout))
    journal.ended(1)
    assert {mode(each) for each in tmp_path.iterdir()} == {0o600}
    journal.close()
    path.chmod(0o644)  # as an older version left it
    SqliteStore.open(path, bytes(16), layout).close()
    assert mode(path) == 0o600


@pytest.mark.usefixtures("umask")
def test_a_log_of_exchanges_is_its_members_alone(tmp_path: Path) -> None:
    log = Logs(tmp_path).open("one")
    log.offered(1, np.zeros((1, 2), np.float32))
    log.close()
    assert mode(log.path) == 0o600


@pytest.mark.usefixtures("umask")
def test_what_flower_says_is_in_files_of_the_owner_alone(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "run")
    program = [Path(sys.executable).name, "-c", "print('from 192.0.2.7')"]
    assert processes.start(program, os.environ, tmp_path / "own.log").wait() == 0
    keep_log(tmp_path / "own.log", folder)
    assert (folder / LOG).read_text() == "from 192.0.2.7\n"
    assert {mode(tmp_path / "own.log"), mode(folder / LOG)} == {0o600}


@pytest.mark.usefixtures("umask")
def test_a_folder_of_an_older_version_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    above = mode(folder.parent)
    assert private_folder(folder) == folder
    assert (mode(folder), mode(folder.parent)) == (0o700, above), "whose it is above is not ours to say"


def test_a_disk_without_permissions_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_permissions(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "chmod", no_permissions)
    with replacing(private_folder(tmp_path / "usb") / "file", private=True) as scratch:
        scratch.write_bytes(b"x")
    assert FileStore(tmp_path / "usb", bytes(16), 0).load() is None


def test_a_folder_that_is_a_file_or_must_be_new_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        private_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        private_folder(tmp_path / "file" / "below")
    with pytest.raises(FileExistsError):
        private_folder(tmp_path, new=True)
