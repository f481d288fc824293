"""The rows of a journal: its tables, what is in them, and the checksum that each row carries."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from wash_fl.core.journal import Enrolment, Standing, bytes_hash

# The first column tells a table's rows apart. There is one row of meta; its digest is the exclusive or of
# the checksums of all other rows, so that a change of one row changes it without reading the others.
TABLES: Final = {
    "meta": ("id", "format", "run", "layout", "settled", "rounds", "secret", "digest"),
    "deliveries": ("member", "exchange", "slots", "slice"),
    "enrolments": ("member", "initial", "incarnation", "joined", "seen", "applied", "standing", "reason"),
    "records": ("exchange", "offers", "deliveries"),
}
SCHEMA: Final = {
    name: f"CREATE TABLE {name} ({key} INTEGER PRIMARY KEY, {', '.join(columns)}, checksum BLOB)"
    for name, (key, *columns) in TABLES.items()
}
META: Final = 1
"""Key of the only row of its table."""


def seal(table: str, row: Sequence[Any], slice_hash: str = "") -> bytes:
    """Return the checksum of a row: of its table, and of each value's type, length and bytes.

    A slice goes in by its hash, ``slice_hash`` if that is known.
    """
    if table == "deliveries":
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
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def enrolment_row(member: int, enrolment: Enrolment) -> tuple[Any, ...]:
    """Return an enrolment as a row."""
    return (
        member,
        enrolment.initial,
        enrolment.incarnation,
        enrolment.joined,
        enrolment.seen,
        enrolment.applied,
        enrolment.standing.value,
        enrolment.reason,
    )


def enrolment_of(row: Sequence[Any]) -> Enrolment:
    """Return the enrolment in a row."""
    initial, incarnation, joined, seen, applied, standing, reason = row[1:]
    return Enrolment(initial, incarnation, joined, seen, applied, Standing(standing), reason)


def hashes_to_json(hashes: dict[int, str]) -> str:
    """Return hashes by member as text."""
    return json.dumps(hashes)


def hashes_from_json(text: str) -> dict[int, str]:
    """Return the hashes in a text."""
    return {int(member): value for member, value in json.loads(text).items()}
