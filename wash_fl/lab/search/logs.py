"""A member's exchange logs in real files: the moments around each record, and what a power cut takes."""

from collections.abc import Callable
from pathlib import Path

from wash_fl.lab.search.moments import Fuse, Killed
from wash_fl.member.log import HEADER_BYTES, SUM_BYTES, ExchangeLog, Kind, Logs
from wash_fl.member.parameters import Values

Recorded = Callable[[Kind, int, Values], None]
"""``recorded(kind, exchange, values)`` is called once a record is in the file."""


LOG_BYTES = 400
"""A log that is longer is begun anew, after a snapshot: a few exchanges."""


class WatchedLogs(Logs):
    """Logs whose writer can be killed before, within and after each record.

    Parameters
    ----------
    folder : Path
        Where they are; a folder in memory, for they are not synced anyway.
    fuse : Fuse
        The member's.
    recorded : callable
        Told of each record.

    Attributes
    ----------
    changes : int
        How often a file changed.
    """

    def __init__(self, folder: Path, fuse: Fuse, recorded: Recorded) -> None:
        super().__init__(folder, least=LOG_BYTES)
        self.changes = 0
        self.fuse = fuse
        self.recorded = recorded

    def open(self, name: str) -> ExchangeLog:
        """Return a log; it need not be there."""
        return _WatchedLog(super().open(name).path, self)

    def content(self, name: str) -> bytes:
        """Return what is in a log, as bytes."""
        path = super().open(name).path
        return path.read_bytes() if name and path.exists() else b""

    def put(self, name: str, content: bytes) -> None:
        """Make these bytes a log."""
        if name:
            path = super().open(name).path
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            self.changes += 1

    def cut(self, name: str, keep: float) -> bool:
        """Lose the end of a log, as a power cut does; return whether anything was lost.

        Parameters
        ----------
        name : str
            Of the log.
        keep : float
            Which part of it is kept, 0 to 1, in bytes: records are not written as a whole by a disk.
        """
        path = super().open(name).path
        size = path.stat().st_size if path.exists() else 0
        left = min(size, int(keep * (size + 1)))
        if left < size:
            with path.open("r+b") as file:
                file.truncate(left)
            self.changes += 1
        return left < size


class _WatchedLog(ExchangeLog):
    def __init__(self, path: Path, logs: WatchedLogs) -> None:
        super().__init__(path)
        self._logs = logs

    def append(self, kind: Kind, exchange: int, values: Values) -> None:
        what = f"recording what it {kind.name.lower()}"
        self._logs.fuse.burn(f"before {what}")
        super().append(kind, exchange, values)
        self._logs.changes += 1
        try:
            self._logs.fuse.burn(f"while {what}")
        except Killed:
            with self.path.open("r+b") as file:
                file.truncate(self.size - (HEADER_BYTES + values.nbytes + SUM_BYTES) // 2)
            raise
        self._logs.recorded(kind, exchange, values)
        self._logs.fuse.burn(f"after {what}")
