"""The server's journal, watched: what is on its disk at every moment, and the moments around each write."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wash_fl.lab.search.moments import Fuse
from wash_fl.protocol.journal_rows import (
    DELIVERIES,
    ENROLMENTS,
    HEAD,
    HEAD_KEY,
    MOVES,
    RECORDS,
    VECTORS,
    Delivery,
    Enrolment,
    Head,
    Moved,
    Record,
    Vector,
)
from wash_fl.protocol.store import MemoryStore, Row, Table
from wash_fl.storage.sqlite_store import SqliteStore

LOG = "-wal"


class Committed(MemoryStore):
    """A copy in memory of what is on the disk."""

    @property
    def members(self) -> dict[int, Enrolment]:
        """What is known of the members."""
        return self.table(ENROLMENTS)

    @property
    def pending(self) -> dict[int, Delivery]:
        """The deliveries that are not acknowledged."""
        return self.table(DELIVERIES)

    @property
    def moves(self) -> dict[int, Moved]:
        """By how much exchanges have moved the anchor, of those that somebody needs."""
        return self.table(MOVES)

    @property
    def vectors(self) -> dict[int, Vector]:
        """The anchor and what goes with it, as they were written down last."""
        return self.table(VECTORS)

    @property
    def settled(self) -> dict[int, Record]:
        """The settled exchanges."""
        return self.table(RECORDS)

    @property
    def last(self) -> int:
        """The last exchange that is settled."""
        return self._head().settled

    @property
    def rounds(self) -> int:
        """Rounds that have ended, on the stream plane."""
        return self._head().rounds

    def _head(self) -> Head:
        return self.table(HEAD)[HEAD_KEY]


class WatchedStore:
    """A store in SQLite, and a copy in memory of what it has committed.

    Parameters
    ----------
    path : Path
        Its file.
    run, layout : bytes
        Whose it is.
    fuse : Fuse
        The server's: it may die before each transaction and after it.
    committed : callable
        Called after each transaction.
    anchored : bool
        Whether the run has an anchor.

    Attributes
    ----------
    known : Committed
        What is on the disk.
    writes : int
        How often it was written to.
    """

    def __init__(
        self,
        path: Path,
        run: bytes,
        layout: bytes,
        *,
        fuse: Fuse,
        committed: Callable[[], None],
        anchored: bool = False,
    ) -> None:
        self.known = Committed()
        self.writes = 0
        self._path = path
        self._run, self._layout = run, layout
        self._fuse = fuse
        self._committed = committed
        self._anchored = anchored
        self._file: SqliteStore | None = None
        self._copied: tuple[dict[Path, bytes], Committed] | None = None

    def reopen(self) -> None:
        """Open the file as a new server process does, and check that it holds what was committed."""
        begins = not self._path.exists()
        # Without syncing: a process is killed here, not the machine.
        self._file = SqliteStore.open(
            self._path, self._run, self._layout, synchronous="OFF", anchored=self._anchored
        )
        if begins:
            with self.known.transaction("a beginning"):
                for key, head in self._file.rows(HEAD):
                    self.known.put(HEAD, key, head)
        file, known = self._file, self.known
        assert dict(file.rows(HEAD)) == known.table(HEAD), "the number of exchanges changed on the disk"
        assert dict(file.rows(ENROLMENTS)) == known.members, "enrolments changed on the disk"
        assert dict(file.rows(RECORDS)) == known.table(RECORDS), "records changed on the disk"
        moves = {key: vars(each) for key, each in file.rows(MOVES)}
        vectors = {key: vars(each) for key, each in file.rows(VECTORS)}
        assert moves == {key: vars(each) for key, each in known.moves.items()}, "moves changed on the disk"
        kept = {key: vars(each) for key, each in known.vectors.items()}
        assert vectors == kept, "the anchor changed on the disk"
        waiting = dict(file.rows(DELIVERIES))
        assert _comparable(waiting) == _comparable(known.pending), "deliveries changed on the disk"

    def copy(self) -> None:
        """Keep a copy of the files, as a process that was killed now would leave them."""
        self._copied = self._files(), copy.deepcopy(self.known)

    @property
    def has_copy(self) -> bool:
        """Whether there is a copy."""
        return self._copied is not None

    def restore_copy(self) -> None:
        """Put the copy in place of the files; the server must be dead."""
        assert self._file is None and self._copied is not None, "a server lives, or there is no copy"
        files, known = self._copied
        self._write_files(files)
        self.known = copy.deepcopy(known)

    def crash(self) -> None:
        """Leave the files as a killed process does: with the log beside the file."""
        if self._file is None:
            return
        left = self._files()
        self._file.close()
        self._write_files(left)
        self._file = None

    @contextmanager
    def transaction(self, event: str) -> Iterator[None]:
        """Return a block that is one transaction, of the file and of the copy."""
        self._fuse.burn(f"before recording {event}")
        with self.known.transaction(event), self._open.transaction(event):
            yield
        self.writes += 1
        self._committed()
        self._fuse.burn(f"after recording {event}")

    def put(self, table: Table[Row], key: int, row: Row) -> None:
        """Write a row."""
        self._open.put(table, key, row)
        self.known.put(table, key, row)

    def delete(self, table: Table[Row], key: int) -> None:
        """Remove a row."""
        self._open.delete(table, key)
        self.known.delete(table, key)

    def rows(self, table: Table[Row]) -> Iterator[tuple[int, Row]]:
        """Return what the file says."""
        return self._open.rows(table)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _files(self) -> dict[Path, bytes]:
        return {each: each.read_bytes() for each in self._places() if each.exists()}

    def _write_files(self, files: Mapping[Path, bytes]) -> None:
        for path in self._places():
            path.unlink(missing_ok=True)
        for path, content in files.items():
            path.write_bytes(content)

    def _places(self) -> tuple[Path, ...]:
        """Return the file, its log, and what SQLite makes anew beside them."""
        return tuple(self._path.with_name(self._path.name + each) for each in ("", LOG, "-shm"))

    @property
    def _open(self) -> SqliteStore:
        assert self._file is not None, "the server is dead"
        return self._file


def _comparable(waiting: Mapping[int, Delivery]) -> dict[int, tuple[int, bytes]]:
    return {member: (each.exchange, each.values.tobytes()) for member, each in waiting.items()}
