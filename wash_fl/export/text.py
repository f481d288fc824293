"""Other programs' words, made fit for a message of one line."""

from typing import Any


def first_line(error: BaseException) -> str:
    """Return an error of another library as one line, cut where it grows long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _cut(lines[0], 300) if lines else type(error).__name__


def short(value: Any) -> str:
    """Return the repr of a value from a file, cut where it grows long."""
    return _cut(repr(value), 80)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
