"""What a journal is kept in: rows by table and key, changed in transactions. A store knows no rules."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True)
class Table(Generic[Row]):
    """The name of a table, and the type of its rows."""

    name: str


class Store(Protocol):
    """Rows by table and key, which are numbers."""

    def transaction(self, event: str) -> AbstractContextManager[None]:
        """Return a block whose changes are all made, and kept, when it ends; none is if it raises.

        ``event`` says what they record, for whoever has to name it.
        """

    def put(self, table: Table[Row], key: int, row: Row) -> None:
        """Write a row, in place of one with the same key; in a transaction."""

    def delete(self, table: Table[Row], key: int) -> None:
        """Remove a row, if there is one; in a transaction."""

    def rows(self, table: Table[Row]) -> Iterator[tuple[int, Row]]:
        """Return the rows of a table with their keys, in order of these; outside of a transaction."""

    def close(self) -> None:
        """Let go of what the store holds; it is not used after that."""


class MemoryStore:
    """A store that lives as long as the process."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[int, Any]] = {}
        self._changes: list[tuple[str, int, Any]] = []

    @contextmanager
    def transaction(self, event: str) -> Iterator[None]:
        """Return a block at whose end its changes are made."""
        del event
        self._changes.clear()
        yield
        for table, key, row in self._changes:
            rows = self._tables.setdefault(table, {})
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = row

    def put(self, table: Table[Row], key: int, row: Row) -> None:
        """Write a row at the end of the transaction."""
        self._changes.append((table.name, key, row))

    def delete(self, table: Table[Row], key: int) -> None:
        """Remove a row at the end of the transaction."""
        self._changes.append((table.name, key, None))

    def rows(self, table: Table[Row]) -> Iterator[tuple[int, Row]]:
        """Return the rows of a table with their keys, in order of these."""
        return iter(sorted(self.table(table).items(), key=lambda each: each[0]))

    def table(self, table: Table[Row]) -> dict[int, Row]:
        """Return the rows of a table by key, as they are and will be."""
        return self._tables.setdefault(table.name, {})

    def close(self) -> None:
        """Nothing to let go of."""
