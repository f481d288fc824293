"""Files that are either whole or not there, and where a device keeps them."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; on success it takes the place of ``path``.

    The content is on the disk before the name is, so that even after a power cut ``path`` holds either
    the old content or the new. After an error nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    # Not tempfile's, which only the owner may read: asking for the umask to mend that would set it for a
    # moment, for all threads.
    os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
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
