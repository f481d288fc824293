"""A member on disk: its last snapshot, and the one before.

A Flower deployment starts a new process for every message, so these files, and nothing in memory, are the
member. A new snapshot is written beside them and synced; then the current file becomes the previous one, and
the new one current. Whenever the process dies or the power fails, at least one whole snapshot is there. A
current file that is missing or damaged is noticed by its checksums, and the previous one is used.

Why going back is safe: a member replies only after its snapshot is on the disk. If it died before that,
nobody heard of what is lost: the server still has the delivery that was applied, and sends it again. If a
disk lied, and forgot what it had said was written after the reply was sent, then the member is behind what
the server has on record: the server notices it by the last exchange that the member says it applied, or
the member by a delivery of an exchange that it does not know (:mod:`wash_fl.protocol.delivery`). It then
starts anew from another member's weights.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wash_fl.errors import StateError
from wash_fl.files import private_folder, replacing
from wash_fl.member.encoding import Damage, encode, read
from wash_fl.member.fence import Fence
from wash_fl.member.log import Logs
from wash_fl.member.snapshot import Snapshot
from wash_fl.system.locks import locked

logger = logging.getLogger("flwr.wash_fl")

FILE = "state.safetensors"
PREVIOUS = f"{FILE}.previous"
LOCK = "lock"
FENCE = "server.json"

LOCK_SECONDS = 600.0
"""How long a process waits for another that uses the same member."""


def state_path(folder: Path, run: bytes, member: int) -> Path:
    """Return where a member's state of a run is kept under a device's state folder."""
    return folder / run.hex() / f"member-{member}" / FILE


class FileStore:
    """Keeps a member's snapshots of a run in files.

    Parameters
    ----------
    folder : Path
        The device's state folder; it may hold other members and other runs.
    run : bytes
        Identity of the run.
    member : int
        The member's index.

    Attributes
    ----------
    path, previous : Path
        The last snapshot and the one before.
    logs : Logs
        What the member exchanged since, on the stream plane.
    """

    def __init__(self, folder: Path, run: bytes, member: int) -> None:
        self.path = state_path(folder, run, member)
        self.previous = self.path.with_name(PREVIOUS)
        self.logs = Logs(self.path.parent)
        self._run = run
        self._member = member
        self._current_is_good: bool | None = None

    @contextmanager
    def locked(self, wait: float = LOCK_SECONDS) -> Iterator[None]:
        """Keep other processes away from this member, from loading it until it is saved.

        Raises
        ------
        StateError
            If another process uses it for more than ``wait`` seconds.
        """
        lock = self.path.with_name(LOCK)
        busy = (
            f"another process has been using {lock.parent} for more than {wait:g} s: stop it, or give each "
            "node a partition-id and a state-dir of its own."
        )
        with locked(lock, busy=busy, wait=wait, place="state-dir", kind=StateError, keep=True):
            try:
                self._current_is_good = None
                yield
            finally:
                if not (self.path.exists() or self.previous.exists()):
                    lock.unlink(missing_ok=True)
                    _remove_empty(self.path.parent, self.path.parent.parent)

    def load(self) -> Snapshot | None:
        """Return the last snapshot that is whole; None if there is none at all.

        Raises
        ------
        StateError
            If none of those that are there can be used, or one is of another run, member or version.
        """
        self._current_is_good = False
        problem = ""
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                snapshot = read(path)
            except Damage as damage:
                problem = problem or f"{path} is damaged ({damage})"
                continue
            self._check_owner(path, snapshot)
            if path == self.path:
                self._current_is_good = True
            else:
                logger.warning(
                    "member %d: %s; it goes on from the state before, of round %d",
                    self._member,
                    problem or f"{self.path} is missing, for writing it was interrupted",
                    snapshot.progress.round,
                )
            return snapshot
        if problem:
            raise StateError(
                f"{problem}, and there is no whole state before it: move {self.path.parent} away to start "
                "this member anew."
            )
        return None

    def save(self, snapshot: Snapshot, *, anew: bool = False) -> None:
        """Write a snapshot; it is on the disk when this returns.

        Parameters
        ----------
        snapshot : Snapshot
            What to keep.
        anew : bool
            Keep nothing from before: the snapshot does not follow from it.

        Raises
        ------
        StateError
            If the disk is full or cannot be written, or the snapshot is of another run or member; what was
            there can still be used.
        """
        self._check_owner(self.path, snapshot)
        content = encode(snapshot)
        try:
            for leftover in self.path.parent.glob(f".{FILE}.*.part"):
                leftover.unlink()  # of a writer that was killed; it may fill the disk
            self._make_folders()
            with replacing(self.path, private=True) as scratch:
                _write(scratch, content)
                if anew:
                    self.previous.unlink(missing_ok=True)
                elif self._keeps_current():
                    self.path.replace(self.previous)
        except OSError as error:
            raise StateError(
                f"{self.path} cannot be written ({error.strerror or error}); the state before it is kept. "
                "Free some space, or use another state-dir."
            ) from error
        self._current_is_good = True

    def remove(self) -> None:
        """Remove every snapshot.

        Raises
        ------
        StateError
            If the files cannot be removed.
        """
        try:
            for path in (*self.path.parent.glob(f".{FILE}.*.part"), self.previous, self.path):
                path.unlink(missing_ok=True)
            self._fence_path.unlink(missing_ok=True)
            self.logs.forget()
        except OSError as error:
            raise StateError(
                f"{self.path.parent} cannot be removed ({error.strerror or error}): remove it by hand."
            ) from error

    def fence(self) -> Fence | None:
        """Return which server the member answers to; None if that is not known."""
        try:
            return Fence.from_json(self._fence_path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None
        except OSError:
            return Fence("", "")

    def keep_fence(self, fence: Fence) -> None:
        """Keep which server the member answers to; it is on the disk when this returns.

        Raises
        ------
        StateError
            If it cannot be written.
        """
        path = self._fence_path
        try:
            self._make_folders()
            with replacing(path, private=True) as scratch:
                scratch.write_text(fence.to_json(), encoding="utf-8")
        except OSError as error:
            raise StateError(f"{path} cannot be written ({error.strerror or error}).") from error

    def _make_folders(self) -> None:
        for folder in (self.path.parent.parent, self.path.parent):
            private_folder(folder)

    @property
    def _fence_path(self) -> Path:
        return self.path.with_name(FENCE)

    def _keeps_current(self) -> bool:
        """Whether the current file is to become the previous one; a damaged one never is."""
        if not self.path.exists():
            return False
        if self._current_is_good is None:
            try:
                read(self.path)
            except (Damage, StateError):
                return False
            return True
        return self._current_is_good

    def _check_owner(self, path: Path, snapshot: Snapshot) -> None:
        """Refuse what is of another run or member: a file that was copied here, or a slip of ours."""
        progress = snapshot.progress
        if (progress.run, progress.member) != (self._run.hex(), self._member):
            raise StateError(
                f"{path} is the state of member {progress.member} of run {progress.run[:16]}, and belongs to "
                f"member {self._member} of run {self._run.hex()[:16]}: move it back to where it came from."
            )


def stored_members(folder: Path, run: bytes) -> list[int]:
    """Return the indices of the members of a run that have a state under a device's state folder."""
    found = {
        path.parent.name.removeprefix("member-")
        for name in (FILE, PREVIOUS)
        for path in (folder / run.hex()).glob(f"member-*/{name}")
    }
    return sorted(int(index) for index in found if index.isdecimal())


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there, through to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone already
            return
