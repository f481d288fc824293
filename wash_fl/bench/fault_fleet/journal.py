"""The server's journal, watched: what is on its disk at every moment, and the moments around each write."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from wash_fl.bench.fault_fleet.moments import Fuse
from wash_fl.core.journal import (
    NOTHING,
    Delivery,
    Enrolment,
    Journal,
    MemoryJournal,
    Record,
    Values,
)
from wash_fl.core.sqlite_journal import SqliteJournal

LOG = "-wal"
RECORDS = 100
"""Exchanges whose records are compared when a server is back: reading more takes longer than the rest."""


class WatchedJournal:
    """A journal in SQLite, and a copy in memory of what it has committed.

    Parameters
    ----------
    path : Path
        Its file.
    run, layout : bytes
        Whose it is.
    fuse : Fuse
        The server's: it may die before each write and after it.
    committed : callable
        Called after each write.

    Attributes
    ----------
    known : MemoryJournal
        What is on the disk.
    writes : int
        How often it was written to.
    """

    def __init__(
        self, path: Path, run: bytes, layout: bytes, *, fuse: Fuse, committed: Callable[[], None]
    ) -> None:
        self.known = MemoryJournal(keep=RECORDS)
        self.writes = 0
        self._path = path
        self._run, self._layout = run, layout
        self._fuse = fuse
        self._committed = committed
        self._file: Journal | None = None

    def reopen(self) -> None:
        """Open the file as a new server process does, and check that it holds what was committed."""
        # Without syncing: a process is killed here, not the machine.
        self._file = SqliteJournal.open(self._path, self._run, self._layout, synchronous="OFF")
        last, waiting = self._file.restore()
        assert last == self.known.last, f"the journal was at {self.known.last}, and is at {last}"
        assert _comparable(waiting) == _comparable(self.known.pending), "deliveries changed in the journal"
        assert self._file.enrolments() == self.known.members, "enrolments changed in the journal"
        assert list(self._file.records())[-len(self.known.history) :] == list(self.known.history)

    def crash(self) -> None:
        """Leave the files as a killed process does: with the log beside the file."""
        if self._file is None:
            return
        log = self._path.with_name(self._path.name + LOG)
        left = {each: each.read_bytes() for each in (self._path, log) if each.exists()}
        self._file.close()
        for path, content in left.items():
            path.write_bytes(content)
        self._file = None

    @property
    def secret(self) -> bytes:
        """What the file says."""
        return self._open.secret

    @property
    def rounds(self) -> int:
        """What the file says."""
        return self._open.rounds

    def settled(
        self,
        exchange: int,
        deliveries: Mapping[int, Delivery],
        offers: Mapping[int, Values],
        acknowledged: Mapping[int, int] = NOTHING,
    ) -> None:
        """Record a settled exchange."""
        self._write(
            lambda journal: journal.settled(exchange, deliveries, offers, acknowledged), "a settled exchange"
        )

    def ended(self, number: int) -> None:
        """Record that a round has ended."""
        self._write(lambda journal: journal.ended(number), "the end of a round")

    def acknowledged(self, member: int, applied: int) -> None:
        """Record an acknowledgement."""
        self._write(lambda journal: journal.acknowledged(member, applied), "an acknowledgement")

    def released(self, member: int) -> None:
        """Drop a delivery."""
        self._write(lambda journal: journal.released(member), "a release")

    def enrolled(self, member: int, enrolment: Enrolment) -> None:
        """Record an enrolment."""
        self._write(lambda journal: journal.enrolled(member, enrolment), "an enrolment")

    def restore(self) -> tuple[int, dict[int, Delivery]]:
        """Return what the file says."""
        return self._open.restore()

    def enrolments(self) -> dict[int, Enrolment]:
        """Return what the file says."""
        return self._open.enrolments()

    def records(self) -> Iterator[Record]:
        """Return what the file says."""
        return self._open.records()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _open(self) -> Journal:
        assert self._file is not None, "the server is dead"
        return self._file

    def _write(self, write: Callable[[Journal], None], what: str) -> None:
        self._fuse.burn(f"before recording {what}")
        write(self._open)
        write(self.known)
        self.writes += 1
        self._committed()
        self._fuse.burn(f"after recording {what}")


def _comparable(waiting: Mapping[int, Delivery]) -> dict[int, tuple[int, bytes]]:
    return {member: (each.exchange, each.values.tobytes()) for member, each in waiting.items()}
