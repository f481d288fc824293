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

import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from wash_fl.core.journal import NOTHING, SECRET_BYTES, Delivery, Enrolment, Record, Standing, Values
from wash_fl.core.journal_rows import (
    META,
    SCHEMA,
    TABLES,
    enrolment_of,
    enrolment_row,
    hashes_from_json,
    hashes_to_json,
    insert,
    seal,
    xor,
)
from wash_fl.errors import RunError, StateError
from wash_fl.files import replacing

FORMAT: Final = "wash-fl journal 3"
LOCK_SECONDS: Final = 15.0
"""How long to wait for a server that is about to end, or an audit, to let go of the file."""

_DISK: Final = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
)
"""What is no fault of the file."""


class SqliteJournal:
    """A :class:`~wash_fl.core.journal.Journal` on disk; made by :meth:`open` or :meth:`read`.

    It may be used from several threads, one at a time.

    Attributes
    ----------
    path : Path
        The file. Beside it SQLite keeps ``<path>-wal``, which is part of it.
    run, layout : bytes
        Identity of the run, and fingerprint of what it exchanges.
    secret : bytes
        Drawn when the journal began.
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._database = database
        # What is known of the rows of the two small tables, so that no decision has to read them again.
        self._deliveries: dict[int, tuple[int, bytes]] = {}
        self._enrolments: dict[int, tuple[Enrolment, bytes]] = {}
        self._meta = self._verify()
        self.run: bytes = self._meta["run"]
        self.layout: bytes = self._meta["layout"]
        self.secret: bytes = self._meta["secret"]

    @property
    def rounds(self) -> int:
        """Rounds that have ended, on the stream plane."""
        return int(self._meta["rounds"])

    @classmethod
    def open(cls, path: Path, run: bytes, layout: bytes, *, synchronous: str = "FULL") -> Self:
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

        Raises
        ------
        RunError
            If another server has it open.
        StateError
            If it is damaged, no journal, or of another version, run, or layout.
        """
        if not path.exists():
            _create(path, run, layout)
        with _explained(path, "read"):
            database = _connect(f"{path.absolute().as_uri()}?mode=rw")
        try:
            with _explained(path, "read"):
                # Before anything is read: then SQLite needs no shared memory, and locks the whole file.
                database.execute("PRAGMA locking_mode=EXCLUSIVE")
                database.execute(f"PRAGMA synchronous={synchronous}")
                journal = cls(path, database)
            if journal.run != run:
                raise StateError(
                    f"{path} is the journal of run {journal.run.hex()}, this run is {run.hex()}: use another "
                    "run-name, or the options this run began with."
                )
            if journal.layout != layout:
                raise StateError(
                    f"{path} is the journal of another model: its layout is {journal.layout.hex()[:16]}, "
                    f"this model's is {layout.hex()[:16]}. Use the model this run began with, or another "
                    "run-name."
                )
        except BaseException:
            database.close()
            raise
        return journal

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
        with _explained(path, "read"):
            database = _connect(f"{path.absolute().as_uri()}?mode=ro")
        try:
            with _explained(path, "read"):
                return cls(path, database)
        except BaseException:
            database.close()
            raise

    def settled(
        self,
        exchange: int,
        deliveries: Mapping[int, Delivery],
        offers: Mapping[int, Values],
        acknowledged: Mapping[int, int] = NOTHING,
    ) -> None:
        """Record a settled exchange, its deliveries, its record, and that its members were seen."""
        record = Record.of(exchange, deliveries, offers)
        with self._transaction():
            for member, applied in acknowledged.items():
                self._drop_delivery(member, applied)
            for member, delivery in deliveries.items():
                self._put_delivery(member, delivery, record.deliveries[member])
            row = (exchange, hashes_to_json(record.offers), hashes_to_json(record.deliveries))
            self._write("records", row, seal("records", row))
            for member in self._enrolments.keys() & (acknowledged.keys() | offers.keys()):
                known = self._enrolments[member][0]
                seen = exchange if member in offers else known.seen
                applied = max(known.applied, acknowledged.get(member, 0))
                self._put_enrolment(member, replace(known, seen=seen, applied=applied))
            self._meta["settled"] = exchange

    def acknowledged(self, member: int, applied: int) -> None:
        """Record that a member needs no delivery of an exchange up to ``applied``."""
        with self._transaction():
            self._drop_delivery(member, applied)
            known, _ = self._enrolments.get(member, (None, b""))
            if known is not None and known.applied < applied:
                self._put_enrolment(member, replace(known, applied=applied))

    def ended(self, number: int) -> None:
        """Record that a round has ended."""
        with self._transaction():
            self._meta["rounds"] = number

    def released(self, member: int) -> None:
        """Drop a member's delivery for good."""
        with self._transaction():
            self._drop_delivery(member)

    def enrolled(self, member: int, enrolment: Enrolment) -> None:
        """Record what is known of a member, and drop a delivery that it has no use for."""
        with self._transaction():
            self._put_enrolment(member, enrolment)
            if enrolment.standing is Standing.ACTIVE:
                self._drop_delivery(member, enrolment.applied)
            else:
                self._drop_delivery(member)

    def restore(self) -> tuple[int, dict[int, Delivery]]:
        """Return the last settled exchange and what waits; the values are read-only."""
        with _explained(self.path, "read"):
            waiting = {}
            for member, exchange, slots, values in self._rows("deliveries"):
                array = np.frombuffer(values, dtype="<f4").reshape(slots, -1)
                waiting[member] = Delivery(exchange, array)
            return self._meta["settled"], waiting

    def enrolments(self) -> dict[int, Enrolment]:
        """Return what is known of the members."""
        with _explained(self.path, "read"):
            return {row[0]: enrolment_of(row) for row in self._rows("enrolments")}

    def records(self) -> Iterator[Record]:
        """Return the settled exchanges in order, one after the other from the disk."""
        with _explained(self.path, "read"):
            for exchange, offers, deliveries in self._rows("records"):
                yield Record(exchange, hashes_from_json(offers), hashes_from_json(deliveries))

    def close(self) -> None:
        """Close the file and let go of it; closing again does nothing."""
        with _explained(self.path, "written"):
            self._database.close()

    # Rows

    def _put_delivery(self, member: int, delivery: Delivery, slice_hash: str) -> None:
        assert member not in self._deliveries, "a delivery would replace one that waits"
        values = np.ascontiguousarray(delivery.values, dtype="<f4")
        row = (member, delivery.exchange, len(values), values.tobytes())
        checksum = seal("deliveries", row, slice_hash)
        self._write("deliveries", row, checksum)
        self._deliveries[member] = delivery.exchange, checksum

    def _drop_delivery(self, member: int, up_to: int | None = None) -> None:
        exchange, checksum = self._deliveries.get(member, (0, b""))
        if checksum and (up_to is None or exchange <= up_to):
            self._database.execute("DELETE FROM deliveries WHERE member = ?", (member,))
            self._count(checksum)
            del self._deliveries[member]

    def _put_enrolment(self, member: int, enrolment: Enrolment) -> None:
        _, replaced = self._enrolments.get(member, (None, b""))
        if replaced:
            self._count(replaced)
        row = enrolment_row(member, enrolment)
        checksum = seal("enrolments", row)
        self._write("enrolments", row, checksum)
        self._enrolments[member] = enrolment, checksum

    def _write(self, table: str, row: tuple[Any, ...], checksum: bytes) -> None:
        """Write a row in place of the one with the same key, whose checksum is not counted any more."""
        self._database.execute(insert(table), (*row, checksum))
        self._count(checksum)

    def _count(self, checksum: bytes) -> None:
        """Put a row's checksum into the digest, or take it out."""
        self._meta["digest"] = xor(self._meta["digest"], checksum)

    def _rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """Read rows in order of their key; each must be as it was written."""
        columns = ", ".join((*TABLES[table], "checksum"))
        query = f"SELECT {columns} FROM {table} ORDER BY {TABLES[table][0]}"
        with closing(self._database.execute(query)) as cursor:
            for *row, checksum in cursor:
                if checksum != seal(table, row):
                    raise _damaged(self.path, f"row {row[0]} of its {table} is altered")
                yield tuple(row)

    # The whole file

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self.path, "written"):
            before = dict(self._meta)
            rows = dict(self._deliveries), dict(self._enrolments)
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                if self._meta != before:
                    row = tuple(self._meta.values())
                    self._database.execute(insert("meta"), (*row, seal("meta", row)))
                self._database.execute("COMMIT")
            except BaseException:
                self._meta = before
                self._deliveries, self._enrolments = rows
                # After some errors (a full disk) SQLite has done that itself.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _verify(self) -> dict[str, Any]:
        """Return the row of meta, if every bit of the file is as it was written."""
        schema = dict(self._database.execute("SELECT name, sql FROM sqlite_master"))
        if "meta" not in schema:
            raise StateError(
                f"{self.path} is no journal of wash-fl: choose another run-name, or move it away."
            )
        found = self._database.execute("SELECT format FROM meta").fetchone()
        if found is not None and found[0] != FORMAT:
            raise StateError(
                f"{self.path} has the format {found[0]!r}, this version reads {FORMAT!r}: finish this run "
                "with the version it began with, or choose another run-name."
            )
        if schema != SCHEMA:
            raise _damaged(self.path, "its tables are altered")
        problem = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise _damaged(self.path, str(problem))
        # A bit of the header decides whether SQLite looks at the log at all.
        if self._database.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raise _damaged(self.path, "its log is switched off")
        digest = bytes(8)
        for table in ("deliveries", "enrolments", "records"):
            for row in self._rows(table):
                checksum = seal(table, row)
                digest = xor(digest, checksum)
                if table == "deliveries":
                    self._deliveries[row[0]] = row[1], checksum
                elif table == "enrolments":
                    self._enrolments[row[0]] = enrolment_of(row), checksum
        found = next(self._rows("meta"), None)
        if found is None:
            raise _damaged(self.path, "its first row is missing")
        meta = dict(zip(TABLES["meta"], found, strict=True))
        if digest != meta["digest"]:
            raise _damaged(self.path, "rows are missing, or of another time")
        return meta


def _create(path: Path, run: bytes, layout: bytes) -> None:
    """Write a journal in which nothing is settled; whole, or not at all."""
    # SQLite would take the log of a file that somebody removed for this one's.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with (
        _explained(path, "written"),
        replacing(path) as scratch,
        closing(_connect(scratch.absolute().as_uri())) as database,
    ):
        database.execute("PRAGMA journal_mode=WAL")
        for statement in SCHEMA.values():
            database.execute(statement)
        row = (META, FORMAT, run, layout, 0, 0, secrets.token_bytes(SECRET_BYTES), bytes(8))
        database.execute(insert("meta"), (*row, seal("meta", row)))
        # Closed before it is renamed: the log goes into the file.


def _connect(uri: str) -> sqlite3.Connection:
    # isolation_level=None: transactions begin and end where we say, and nowhere else.
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=LOCK_SECONDS, check_same_thread=False)


@contextmanager
def _explained(path: Path, doing: str) -> Iterator[None]:
    """Say in a user's words what SQLite found."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except UnicodeDecodeError as error:
        # Also what SQLite says of a name that is damaged.
        raise _damaged(path, "a text in it is altered") from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise RunError(
                f"another server is using this run: it has {path} open. Stop it, or choose another run-name."
            ) from error
        if code in _DISK:
            raise StateError(
                f"{path} cannot be {doing} ({error}); what it held before is kept. Free some space or see to "
                "the disk, then run again with the same run-name."
            ) from error
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> StateError:
    # On one line, whatever SQLite says.
    return StateError(
        f"{path} is damaged ({' '.join(reason.split())}): choose another run-name to begin anew."
    )
