"""The journal of a server that may die at any moment: one SQLite file.

What it rests on:

- One transaction per decision, in SQLite's write-ahead log, synced before the call returns. A server killed
  between any two bytes finds the decision whole or not at all.
- One server at a time: SQLite's exclusive lock, which the system lifts when the process ends in any way.
- Nothing wrong is believed. Each row carries a checksum (BLAKE2b-64), and one row the digest of them all and
  the identity of run and layout, so that a row which is altered, missing or of another time is noticed when
  the file is opened. The file is created under another name: an empty one is damage, no beginning.

What it cannot see: a disk that drops the newest transactions as a whole, or a file that is put back from an
old copy. Such a journal is consistent, and behind its members, which then have applied exchanges that it has
not settled; the escrow ignores these.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Self, cast

from wash_fl.errors import RunError, StateError
from wash_fl.files import make_private, replacing
from wash_fl.protocol.journal_rows import DELIVERIES, ENROLMENTS, HEAD, MOVES, VECTORS, Head
from wash_fl.protocol.store import Row, Table
from wash_fl.storage.columns import FORMS, META, SCHEMA, TABLES, WITHOUT_ANCHOR, Columns, insert, seal, xor
from wash_fl.storage.sqlite_errors import damaged, explained

FORMAT: Final = "wash-fl journal 3"
WITH_ANCHOR: Final = "wash-fl journal 4"
"""The same, and the tables of an anchor."""
_SCHEMAS: Final = {FORMAT: WITHOUT_ANCHOR, WITH_ANCHOR: SCHEMA}
LOCK_SECONDS: Final = 15.0
"""How long to wait for a server that is about to end, or an audit, to let go of the file."""

NO_CHECKSUM: Final = bytes(8)
"""Of a row that is not there: it changes no digest."""


class SqliteStore:
    """A :class:`~wash_fl.protocol.store.Store` on disk; made by :meth:`open` or :meth:`read`.

    It may be used from several threads, one at a time.

    Attributes
    ----------
    path : Path
        The file. Beside it SQLite keeps ``<path>-wal``, which is part of it.
    run, layout : bytes
        Identity of the run, and fingerprint of what it exchanges.
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._database = database
        # Of the tables that do not grow with the exchanges, so that no transaction has to read slices.
        tables = (DELIVERIES, ENROLMENTS, MOVES, VECTORS)
        self._checksums: dict[str, dict[int, bytes]] = {each.name: {} for each in tables}
        self._meta = self._verify()
        self.run: bytes = self._meta["run"]
        self.layout: bytes = self._meta["layout"]

    @classmethod
    def open(
        cls, path: Path, run: bytes, layout: bytes, *, synchronous: str = "FULL", anchored: bool = False
    ) -> Self:
        """Open the journal of a run, or begin it; no other server can open it until it is closed.

        Parameters
        ----------
        path : Path
            Its file; the folder is made.
        run, layout : bytes
            Identity of the run, and fingerprint of what it exchanges: those of the journal must be the same.
        synchronous : str
            SQLite's word for what survives a power cut: ``FULL`` all that was written, ``NORMAL`` and ``OFF``
            may lose the newest transactions. A killed process loses nothing with any.
        anchored : bool
            Whether a journal that begins has the tables of an anchor.

        Raises
        ------
        RunError
            If another server has it open.
        StateError
            If it is damaged, no journal, or of another version, run, or layout.
        """
        if not path.exists():
            _create(path, run, layout, WITH_ANCHOR if anchored else FORMAT)
        make_private(path)  # one of an older version
        with explained(path, "read"):
            database = _connect(f"{path.absolute().as_uri()}?mode=rw")
        try:
            with explained(path, "read"):
                # Before anything is read: then SQLite needs no shared memory, and locks the whole file.
                database.execute("PRAGMA locking_mode=EXCLUSIVE")
                database.execute(f"PRAGMA synchronous={synchronous}")
                store = cls(path, database)
            if store.run != run:
                raise StateError(
                    f"{path} is the journal of run {store.run.hex()}, this run is {run.hex()}: use another "
                    "run-name, or the options this run began with."
                )
            if store.layout != layout:
                raise StateError(
                    f"{path} is the journal of another model: its layout is {store.layout.hex()[:16]}, "
                    f"this model's is {layout.hex()[:16]}. Use the model this run began with, or another "
                    "run-name."
                )
        except BaseException:
            database.close()
            raise
        return store

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open a journal only to look at it, whatever run it is of; not while a server has it open.

        Raises
        ------
        RunError
            If a server has it open, or there is none.
        StateError
            If it is damaged, no journal, or of another version.
        """
        if not path.exists():
            raise RunError(f"{path} does not exist: a run's journal is in its folder on the server.")
        with explained(path, "read"):
            database = _connect(f"{path.absolute().as_uri()}?mode=ro")
        try:
            with explained(path, "read"):
                return cls(path, database)
        except BaseException:
            database.close()
            raise

    @contextmanager
    def transaction(self, event: str) -> Iterator[None]:
        """Return a block whose changes are made in one transaction, synced when it ends."""
        del event
        with explained(self.path, "written"):
            before = dict(self._meta)
            checksums = {name: dict(each) for name, each in self._checksums.items()}
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                if self._meta != before:
                    columns = tuple(self._meta.values())
                    self._database.execute(insert(HEAD.name), (*columns, seal(HEAD.name, columns)))
                self._database.execute("COMMIT")
            except BaseException:
                self._meta = before
                self._checksums = checksums
                # After some errors (a full disk) SQLite has done that itself.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def put(self, table: Table[Row], key: int, row: Row) -> None:
        """Write a row, in place of one with the same key."""
        if isinstance(row, Head):
            self._meta |= {"settled": row.settled, "rounds": row.rounds, "secret": row.secret}
            return
        columns, checksum = FORMS[table.name].sealed(key, row)
        self._count(self._checksum(table, key))
        self._database.execute(insert(table.name), (*columns, checksum))
        self._count(checksum)
        if table.name in self._checksums:
            self._checksums[table.name][key] = checksum

    def delete(self, table: Table[Row], key: int) -> None:
        """Remove a row, if there is one."""
        self._count(self._checksum(table, key))
        self._database.execute(f"DELETE FROM {table.name} WHERE {TABLES[table.name][0]} = ?", (key,))
        self._checksums.get(table.name, {}).pop(key, None)

    def rows(self, table: Table[Row]) -> Iterator[tuple[int, Row]]:
        """Return the rows of a table with their keys, one after the other from the disk."""
        if table.name not in _SCHEMAS[self._meta["format"]]:
            return
        if table == HEAD:
            meta = self._meta
            yield META, cast(Row, Head(meta["secret"], meta["settled"], meta["rounds"]))
            return
        with explained(self.path, "read"):
            for columns in self._columns(table.name):
                yield columns[0], FORMS[table.name].row(columns)

    def close(self) -> None:
        """Close the file and let go of it; closing again does nothing."""
        with explained(self.path, "written"):
            self._database.close()

    # The digest

    def _checksum(self, table: Table[Row], key: int) -> bytes:
        """Return the checksum of a row that is about to go; zeros if there is none."""
        if table.name in self._checksums:
            return self._checksums[table.name].get(key, NO_CHECKSUM)
        query = f"SELECT checksum FROM {table.name} WHERE {TABLES[table.name][0]} = ?"
        row = self._database.execute(query, (key,)).fetchone()
        return NO_CHECKSUM if row is None else bytes(row[0])

    def _count(self, checksum: bytes) -> None:
        """Put a row's checksum into the digest, or take it out."""
        self._meta["digest"] = xor(self._meta["digest"], checksum)

    def _columns(self, table: str) -> Iterator[Columns]:
        """Read rows in order of their key; each must be as it was written."""
        columns = ", ".join((*TABLES[table], "checksum"))
        query = f"SELECT {columns} FROM {table} ORDER BY {TABLES[table][0]}"
        with closing(self._database.execute(query)) as cursor:
            for *row, checksum in cursor:
                if checksum != seal(table, row):
                    raise damaged(self.path, f"row {row[0]} of its {table} is altered")
                yield tuple(row)

    def _verify(self) -> dict[str, Any]:
        """Return the row of meta, if every bit of the file is as it was written."""
        schema = dict(self._database.execute("SELECT name, sql FROM sqlite_master"))
        if "meta" not in schema:
            raise StateError(
                f"{self.path} is no journal of wash-fl: choose another run-name, or move it away."
            )
        row = self._database.execute("SELECT format FROM meta").fetchone()
        if row is not None and row[0] not in _SCHEMAS:
            raise StateError(
                f"{self.path} has the format {row[0]!r}, this version reads {FORMAT!r} and {WITH_ANCHOR!r}:"
                " finish this run with the version it began with, or choose another run-name."
            )
        if schema != (WITHOUT_ANCHOR if row is None else _SCHEMAS[row[0]]):
            raise damaged(self.path, "its tables are altered")
        problem = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise damaged(self.path, str(problem))
        # A bit of the header decides whether SQLite looks at the log at all.
        if self._database.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raise damaged(self.path, "its log is switched off")
        digest = NO_CHECKSUM
        for table in FORMS.keys() & schema.keys():
            for columns in self._columns(table):
                checksum = seal(table, columns)
                digest = xor(digest, checksum)
                if table in self._checksums:
                    self._checksums[table][columns[0]] = checksum
        row = next(self._columns(HEAD.name), None)
        if row is None:
            raise damaged(self.path, "its first row is missing")
        meta = dict(zip(TABLES[HEAD.name], row, strict=True))
        if digest != meta["digest"]:
            raise damaged(self.path, "rows are missing, or of another time")
        return meta


def _create(path: Path, run: bytes, layout: bytes, kind: str) -> None:
    """Write a journal in which nothing is settled; whole, or not at all."""
    # SQLite would take the log of a file that somebody removed for this one's.
    _remove_log(path)
    with (
        explained(path, "written"),
        replacing(path, private=True) as scratch,  # the members' tokens follow from what is in it
        _without_log(scratch),
        closing(_connect(scratch.absolute().as_uri())) as database,
    ):
        database.execute("PRAGMA journal_mode=WAL")
        for statement in _SCHEMAS[kind].values():
            database.execute(statement)
        head = Head.first()
        row = (META, kind, run, layout, head.settled, head.rounds, head.secret, NO_CHECKSUM)
        database.execute(insert(HEAD.name), (*row, seal(HEAD.name, row)))
        # Closed before it is renamed: the log goes into the file.


@contextmanager
def _without_log(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        _remove_log(path)  # there still, if the disk was full


def _remove_log(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(uri: str) -> sqlite3.Connection:
    # isolation_level=None: transactions begin and end where we say, and nowhere else.
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=LOCK_SECONDS, check_same_thread=False)
