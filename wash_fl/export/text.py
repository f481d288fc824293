"""Other programs' words, made fit for a message of one line."""

from typing import Any

from wash_fl.errors import user_line


def first_line(error: BaseException) -> str:
    """Return an error of another library as one line, cut where it grows long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _cut(lines[0], 300) if lines else type(error).__name__


def cause_of(error: BaseException) -> str:
    """Return the type of an error of another library, its first line, and the user's line if there is one.

    Such as ``ValueError: no such thing, at my_task.py:31``.
    """
    where = user_line(error)
    return f"{type(error).__name__}: {first_line(error)}" + (f", at {where}" if where else "")


def short(value: Any) -> str:
    """Return the repr of a value from a file, cut where it grows long."""
    return _cut(repr(value), 80)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
