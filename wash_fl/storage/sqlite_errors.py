"""What SQLite says is wrong with a journal, in a user's words."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from wash_fl.errors import RunError, StateError

_DISK: Final = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
)
"""What is no fault of the file."""


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Return a block from which nothing of SQLite's comes, but an error that says what is to be done."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except UnicodeDecodeError as error:
        # Also what SQLite says of a name that is damaged.
        raise damaged(path, "a text in it is altered") from error
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
        raise damaged(path, str(error)) from error


def damaged(path: Path, reason: str) -> StateError:
    """Return the error of a journal that is not as it was written, on one line, whatever SQLite says."""
    return StateError(
        f"{path} is damaged ({' '.join(reason.split())}): choose another run-name to begin anew."
    )
