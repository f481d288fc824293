"""Files that are either whole or not there, who may read them, and where a device keeps them."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
"""Permissions of a file that its owner alone may read."""


def private_folder(path: Path, *, new: bool = False) -> Path:
    """Return a folder that its owner alone can look into, whatever the umask; it is made if it is not there.

    Those above it are made as any folder is.

    Parameters
    ----------
    path : Path
        The folder.
    new : bool
        Whether it must not be there yet.

    Raises
    ------
    FileExistsError
        If it must not be there and is, or is a file.
    """
    # Made so at once, and not made wide and then narrow: somebody could come in between.
    try:
        try:
            path.mkdir(mode=0o700)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
    except FileExistsError:
        if new or not path.is_dir():
            raise
    # One that an older version has made; a disk that knows no permissions, or another owner, is left alone.
    with suppress(OSError):
        path.chmod(0o700)
    return path


def make_private(path: Path) -> None:
    """Let its owner alone read a file that is there, where the disk knows permissions."""
    with suppress(OSError):
        path.chmod(PRIVATE)


def private_opener(path: str, flags: int) -> int:
    """Return a descriptor for :func:`open`: a file that it makes is its owner's alone, whatever the umask."""
    return os.open(path, flags, PRIVATE)


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; on success it takes the place of ``path``.

    The content is on the disk before the name is, so that even after a power cut ``path`` holds either
    the old content or the new. After an error nothing is left behind.

    Parameters
    ----------
    path : Path
        The file; its folder is made if it is not there.
    private : bool
        Whether its owner alone may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    # Not tempfile's, which only the owner may read: asking for the umask to mend that would set it for a
    # moment, for all threads.
    os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE if private else 0o666))
    try:
        yield scratch
        _sync(scratch)
        scratch.replace(path)
        _sync(path.parent)
    except OSError as error:
        # A disk that is full does not say for which file, and the scratch is none that anybody knows.
        if error.filename in (None, str(scratch)):
            error.filename = str(path)
        raise
    finally:
        scratch.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, atomically and durably."""
    with replacing(path) as scratch:
        scratch.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file, atomically and durably."""
    write_bytes(path, content.encode())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def members_folder(*options: object) -> Path:
    """Return where a device keeps its members: the first of these that is set, or the user's own place.

    Parameters
    ----------
    options : object
        What options say, the most particular first; after them counts the environment's ``WASH_FL_STATE``,
        and then ``~/.local/state/wash-fl``.
    """
    places = (*options, os.environ.get("WASH_FL_STATE"))
    return Path(next((str(place) for place in places if place), "~/.local/state/wash-fl")).expanduser()
