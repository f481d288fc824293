"""Files that are made once: whole or not there, never overwritten, private ones private from the start."""

import os
import secrets
from pathlib import Path

from wash_fl.errors import WashError
from wash_fl.files import PRIVATE


class CredentialsError(WashError):
    """A certificate or a key cannot be made or read, or would be overwritten."""


def refuse_existing(*paths: Path) -> None:
    """Check that none of these files exists.

    Raises
    ------
    CredentialsError
        If one does.
    """
    existing = [path for path in paths if path.exists()]
    if existing:
        raise CredentialsError(
            f"{' and '.join(map(str, existing))} {'exists' if len(existing) == 1 else 'exist'}, and keys are "
            "never overwritten: delete what is to be made anew, or choose another folder or name."
        )


def write_new(path: Path, content: bytes, *, private: bool) -> None:
    """Write a file that does not exist yet, atomically and durably.

    Parameters
    ----------
    path : Path
        The file; its folder is made if it does not exist.
    content : bytes
        All of it.
    private : bool
        Whether its owner alone may read it.

    Raises
    ------
    CredentialsError
        If it exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE if private else 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Not replace(): a file that another process has made in the meantime stays.
        os.link(scratch, path)
    except FileExistsError:
        refuse_existing(path)
        raise
    finally:
        scratch.unlink(missing_ok=True)
