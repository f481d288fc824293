"""What was injected so far: a fault that is to happen once must not happen again to a restarted process."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Ledger(Protocol):
    """Counts how often each fault of a plan was injected."""

    def claim(self, fault: int, kind: str, times: int) -> bool:
        """Count one more injection of a fault, unless there were ``times`` already (0: no limit)."""

    def count(self) -> dict[str, int]:
        """Return how many faults were injected, by kind."""


class MemoryLedger:
    """A ledger that lives as long as the process."""

    def __init__(self) -> None:
        self._claimed: Counter[int] = Counter()
        self._kinds: Counter[str] = Counter()

    def claim(self, fault: int, kind: str, times: int) -> bool:
        """Count one more injection."""
        if times and self._claimed[fault] >= times:
            return False
        self._claimed[fault] += 1
        self._kinds[kind] += 1
        return True

    def count(self) -> dict[str, int]:
        """Return the counts."""
        return dict(self._kinds)


class FolderLedger:
    """A ledger of empty files, shared by all processes of a fleet, killed and restarted ones too.

    Parameters
    ----------
    folder : Path
        Holds one file per injection, ``<fault>-<how many times before>.<kind>``; it is made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def claim(self, fault: int, kind: str, times: int) -> bool:
        """Count one more injection; of two processes that want the last one, one gets it."""
        number = 0
        while not times or number < times:
            with suppress(FileExistsError):
                # O_EXCL is what makes a claim atomic between processes.
                os.close(os.open(self._folder / f"{fault}-{number}.{kind}", os.O_CREAT | os.O_EXCL, 0o666))
                return True
            number += 1
        return False

    def count(self) -> dict[str, int]:
        """Return the counts."""
        return dict(Counter(path.suffix[1:] for path in sorted(self._folder.iterdir()) if path.suffix))
