"""A journal's rows as SQLite has them: the tables, the columns, and the checksum that each row carries."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

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
    Moved,
    Record,
    Standing,
    Vector,
    bytes_hash,
)

# The first column is the key. There is one row of meta; its digest is the exclusive or of the checksums of
# all other rows, so that a change of one row changes it without reading the others.
TABLES: Final = {
    HEAD.name: ("id", "format", "run", "layout", "settled", "rounds", "secret", "digest"),
    DELIVERIES.name: ("member", "exchange", "slots", "slice"),
    ENROLMENTS.name: ("member", "initial", "incarnation", "joined", "seen", "applied", "standing", "reason"),
    RECORDS.name: ("exchange", "offers", "deliveries"),
    MOVES.name: ("exchange", "previous", "chain", "delta", "error", "momentum"),
    VECTORS.name: ("vector", "exchange", "slice"),
}
ANCHOR: Final = (MOVES.name, VECTORS.name)
"""The tables that only a run of differences to an anchor has."""
SCHEMA: Final = {
    name: f"CREATE TABLE {name} ({key} INTEGER PRIMARY KEY, {', '.join(columns)}, checksum BLOB)"
    for name, (key, *columns) in TABLES.items()
}
WITHOUT_ANCHOR: Final = {name: each for name, each in SCHEMA.items() if name not in ANCHOR}
META: Final = HEAD_KEY
"""Key of the only row of its table."""

Columns = tuple[Any, ...]


def seal(table: str, row: Sequence[Any], slice_hash: str = "") -> bytes:
    """Return the checksum of a row: of its table, and of each value's type, length and bytes.

    A slice goes in by its hash, ``slice_hash`` if that is known.
    """
    if table == DELIVERIES.name:
        row = (*row[:-1], slice_hash or bytes_hash(row[-1]))
    digest = hashlib.blake2b(table.encode(), digest_size=8)
    for value in row:
        content = value if isinstance(value, bytes) else str(value).encode()
        digest.update(f"{type(value).__name__} {len(content)} ".encode())
        digest.update(content)
    return digest.digest()


def insert(table: str) -> str:
    """Return the statement that writes a row, with its checksum, in place of the one with the same key."""
    return f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * (len(TABLES[table]) + 1))})"


def xor(one: bytes, other: bytes) -> bytes:
    """Return the exclusive or of two checksums."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


class Form(NamedTuple):
    """How the rows of a table become columns, and columns rows again."""

    sealed: Callable[[int, Any], tuple[Columns, bytes]]
    row: Callable[[Columns], Any]


def _delivery_columns(member: int, delivery: Delivery) -> tuple[Columns, bytes]:
    values = np.ascontiguousarray(delivery.values, dtype="<f4")
    columns = (member, delivery.exchange, len(values), values.tobytes())
    return columns, seal(DELIVERIES.name, columns, delivery.digest)


def _delivery(columns: Columns) -> Delivery:
    """Return a delivery; its values are read-only."""
    _, exchange, slots, values = columns
    return Delivery(exchange, np.frombuffer(values, dtype="<f4").reshape(slots, -1))


def _enrolment_columns(member: int, enrolment: Enrolment) -> tuple[Columns, bytes]:
    columns = (
        member,
        enrolment.initial,
        enrolment.incarnation,
        enrolment.joined,
        enrolment.seen,
        enrolment.applied,
        enrolment.standing.value,
        enrolment.reason,
    )
    return columns, seal(ENROLMENTS.name, columns)


def _enrolment(columns: Columns) -> Enrolment:
    initial, incarnation, joined, last_seen, applied, standing, reason = columns[1:]
    return Enrolment(initial, incarnation, joined, last_seen, applied, Standing(standing), reason)


def _record_columns(exchange: int, record: Record) -> tuple[Columns, bytes]:
    columns = (exchange, json.dumps(record.offers), json.dumps(record.deliveries))
    return columns, seal(RECORDS.name, columns)


def _record(columns: Columns) -> Record:
    exchange, offers, deliveries = columns
    return Record(exchange, _hashes(offers), _hashes(deliveries))


def _moved_columns(exchange: int, moved: Moved) -> tuple[Columns, bytes]:
    # A column of integers has no room for a number of 64 bits without a sign.
    chain = moved.chain.to_bytes(8, "little")
    columns = (exchange, moved.previous, chain, moved.delta, moved.error, moved.momentum)
    return columns, seal(MOVES.name, columns)


def _moved(columns: Columns) -> Moved:
    exchange, previous, chain, delta, error, momentum = columns
    return Moved(exchange, previous, int.from_bytes(chain, "little"), delta, error, momentum)


def _vector_columns(key: int, vector: Vector) -> tuple[Columns, bytes]:
    columns = (key, vector.exchange, vector.values)
    return columns, seal(VECTORS.name, columns)


def _vector(columns: Columns) -> Vector:
    return Vector(columns[1], columns[2])


def _hashes(text: str) -> dict[int, str]:
    return {int(member): value for member, value in json.loads(text).items()}


FORMS: Final[Mapping[str, Form]] = {
    DELIVERIES.name: Form(_delivery_columns, _delivery),
    ENROLMENTS.name: Form(_enrolment_columns, _enrolment),
    RECORDS.name: Form(_record_columns, _record),
    MOVES.name: Form(_moved_columns, _moved),
    VECTORS.name: Form(_vector_columns, _vector),
}
