"""Folders for whole models that wait on the server's disk: gone with their process, or with the next one."""

import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from wash_fl.system.locks import is_locked, locked

PREFIX: Final = "wash-fl-"
UNFINISHED: Final = "wash-new-"
"""Of a folder that nobody has locked yet."""

OWNER: Final = ".owner"
"""The file in it that its process holds the lock on: the system lets go of it however the process ends."""

UNFINISHED_SECONDS: Final = 3600.0

logger = logging.getLogger("flwr.wash_fl")


@contextmanager
def scratch_folder(place: Path | None = None) -> Iterator[Path]:
    """Give a folder of this process's own, which is removed with all that is in it.

    First those are removed that a process left behind that was killed, of whatever run.

    Parameters
    ----------
    place : Path, optional
        Where it is made; the system's place for temporary files (``TMPDIR``) by default.

    Raises
    ------
    RunError
        If files cannot be locked there.
    """
    place = place or Path(tempfile.gettempdir())
    remove_leftovers(place)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place))
    folder = unfinished
    try:
        with locked(unfinished / OWNER, busy=f"{unfinished} is somebody else's.", place="TMPDIR", keep=True):
            # Under its name there is never one without its owner.
            folder = unfinished.rename(place / f"{PREFIX}{secrets.token_hex(8)}")
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(place: Path) -> int:
    """Remove the folders of processes that were killed, and return how many that were.

    Only what this user's own processes have made is touched.

    Parameters
    ----------
    place : Path
        Where they were made.
    """
    count = 0
    for folder in (*place.glob(f"{PREFIX}*"), *place.glob(f"{UNFINISHED}*")):
        with suppress(OSError):  # somebody else was quicker
            if _is_left_behind(folder):
                logger.info("removing %s: the process that made it was killed", folder)
                shutil.rmtree(folder)
                count += 1
    return count


def _is_left_behind(folder: Path) -> bool:
    # Not that of a link: it may lead anywhere.
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or (hasattr(os, "geteuid") and about.st_uid != os.geteuid()):
        return False
    if folder.name.startswith(UNFINISHED):
        return time.time() - about.st_mtime > UNFINISHED_SECONDS and not is_locked(folder / OWNER)
    return (folder / OWNER).exists() and not is_locked(folder / OWNER)
