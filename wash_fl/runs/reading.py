"""Files that may be damaged, read as far as they are whole."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from wash_fl.errors import reason_of
from wash_fl.runs.json_lines import json_lines

T = TypeVar("T")
Row = Mapping[str, Any]

_DAMAGE: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What is raised by reading what is not as it should be; a WashError is a ValueError."""


class Reading:
    """Reads what can be read, and keeps account of what cannot."""

    def __init__(self) -> None:
        self._missing: list[str] = []
        self._damaged_lines: Counter[str] = Counter()

    def missing(self) -> list[str]:
        """Return what could not be read, a line each."""
        damage = [
            f"{count} {'line' if count == 1 else 'lines'} of {name} cannot be read"
            for name, count in self._damaged_lines.items()
            if count
        ]
        return [*self._missing, *damage]

    def miss(self, what: str) -> None:
        """Take down something else that is not there."""
        self._missing.append(what)

    def whole(self, name: str, read: Callable[[], T]) -> T | None:
        """Return what a file holds that is of no use in parts; None if it cannot be read."""
        try:
            return read()
        except (*_DAMAGE, OSError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else reason_of(error)
            self.miss(f"{name} cannot be read ({reason})")
            return None

    def lines(self, path: Path, read: Callable[[Row], T]) -> list[T]:
        """Return what the lines of a file hold."""
        try:
            lines = list(json_lines(path))
        except OSError as error:
            self.miss(f"{path.name} cannot be read ({error.strerror or error})")
            return []
        self._damaged_lines[path.name] += lines.count(None)
        return self.rows(path.name, [line for line in lines if line is not None], read)

    def rows(self, name: str, rows: Iterable[Row], read: Callable[[Row], T]) -> list[T]:
        """Return what rows of a file hold."""
        values = []
        for row in rows:
            try:
                values.append(read(row))
            except _DAMAGE:
                self._damaged_lines[name] += 1
        return values
