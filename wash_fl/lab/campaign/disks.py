"""Small disks for members' states, which can be filled up and made read-only; and bits that are flipped."""

import errno
import os
import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from wash_fl.errors import RunError

SIZE: Final = "16m"
FILLER: Final = "filler"
BUSY_SECONDS: Final = 30.0


class SmallDisk:
    """A disk in memory, at a folder.

    It must be made in a mount namespace of one's own (:func:`wash_fl.lab.network.namespaces.own_mounts`):
    then it is gone with the processes there.

    Parameters
    ----------
    folder : Path
        Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _mount("-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(folder))

    def fill(self) -> None:
        """Leave no room."""
        with (self._folder / FILLER).open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def empty(self) -> None:
        """Make room again."""
        (self._folder / FILLER).unlink(missing_ok=True)

    def protect(self) -> None:
        """Let nobody write; waits for those who are writing.

        Raises
        ------
        RunError
            If somebody does not stop writing.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                _mount("-o", "remount,ro", str(self._folder))
                return
            except RunError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def release(self) -> None:
        """Let everybody write again."""
        _mount("-o", "remount,rw", str(self._folder))

    def unmount(self) -> None:
        """Leave the folder what it was before; what was on the disk is gone."""
        subprocess.run(["umount", "--lazy", str(self._folder)], check=False, capture_output=True)


def flip_a_bit(path: Path, generator: random.Random) -> int:
    """Flip one bit of a file where it lies, and return the place of its byte.

    Raises
    ------
    RunError
        If the file is empty or not there.
    """
    with suppress(FileNotFoundError):
        size = path.stat().st_size
        if size:
            place = generator.randrange(size)
            with path.open("r+b", buffering=0) as file:
                file.seek(place)
                byte = file.read(1)
                if byte:
                    file.seek(place)
                    file.write(bytes([byte[0] ^ (1 << generator.randrange(8))]))
                    os.fsync(file.fileno())
                    return place
    raise RunError(f"{path.name} has no bit to flip.")


def _mount(*arguments: str) -> None:
    process = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if process.returncode:
        raise RunError(f"mount {' '.join(arguments)} fails: {' '.join(process.stderr.split()).rstrip('.')}.")
