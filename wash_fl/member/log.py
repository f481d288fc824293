"""What a member gave and got since its last snapshot, on the stream plane, written as it happens.

A snapshot is as large as the model, so it is not written at every exchange. What an exchange changed is:
before an offer is sent, its values; before a delivery is acknowledged, the values held after it. After a
crash the member is its last snapshot with these written over it, one after the other: what it learned in
between is lost, but no value that it exchanged is, nor is one held twice.

A record reaches the operating system before the member goes on, so it survives the death of the process; it
is not synced, and a power cut may lose the last ones. Either the server then sees a member that has applied
less than it acknowledged, or the member sees a delivery for an offer that it does not know
(:mod:`wash_fl.protocol.delivery`); in both cases it starts anew.
"""

import secrets
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.anchor import Anchor
from wash_fl.errors import StateError
from wash_fl.files import private_opener
from wash_fl.member.parameters import Values
from wash_fl.member.snapshot import Snapshot

_HEADER: Final = struct.Struct("<4sIQII")
_MARK: Final = b"wlog"
_SUM: Final = struct.Struct("<I")
_PREFIX: Final = "exchanges."
_CHAIN: Final = 2
"""A chain has as many bits as two values."""

LOG_BYTES: Final = 16 << 20
"""A log smaller than this, or than the model, is no reason to save the member in the middle of a round."""

HEADER_BYTES, SUM_BYTES = _HEADER.size, _SUM.size
"""Of a record, before and after its values."""


class Kind(IntEnum):
    """What a record says."""

    OFFERED = 1  # these values are about to be offered
    APPLIED = 2  # these values are held since the delivery was applied
    MISSED = 3  # by this the anchor moved in an exchange without the member
    SETTLED = (
        4  # these values are held since the delivery was applied, and by those below them the anchor moved
    )
    ANCHORED = 5  # this is the anchor, and at last its chain


@dataclass(frozen=True, eq=False)
class Entry:
    """One record.

    Attributes
    ----------
    kind : Kind
        What happened.
    exchange : int
        In which exchange.
    values : ndarray of float32, shape (slots, count)
        What the member holds at its coordinates from then on, or what the kind says.
    """

    kind: Kind
    exchange: int
    values: Values

    @property
    def held(self) -> Values | None:
        """What the member holds at the coordinates from then on; None if what it did before."""
        if self.kind is Kind.SETTLED:
            return self.values[: len(self.values) // 2]
        return self.values if self.kind in (Kind.OFFERED, Kind.APPLIED) else None

    def move(self, anchor: Anchor, coordinates: NDArray[np.int64]) -> None:
        """Do to a member's anchor what was done then."""
        if self.kind is Kind.ANCHORED:
            anchor.values = self.values[0, :-_CHAIN].reshape(anchor.values.shape).copy()
            anchor.chain = int.from_bytes(self.values[0, -_CHAIN:].astype("<f4").tobytes(), "little")
        if self.kind is Kind.MISSED:
            anchor.move(self.exchange, coordinates, self.values)
        elif self.kind is Kind.SETTLED:
            anchor.move(self.exchange, coordinates, self.values[len(self.values) // 2 :])


class ExchangeLog:
    """A file of records; one that was being written when the process died is no record.

    Parameters
    ----------
    path : Path
        It need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._file: BinaryIO | None = None

    def read(self) -> Iterator[Entry]:
        """Yield the records in order, up to the first that is not whole."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise StateError(f"{self.path} cannot be read ({error.strerror}): mend that.") from error
        begin = 0
        while (entry := _entry(content, begin)) is not None:
            yield entry
            begin += HEADER_BYTES + entry.values.nbytes + SUM_BYTES
        self.size = begin

    def append(self, kind: Kind, exchange: int, values: Values) -> None:
        """Write a record.

        Raises
        ------
        StateError
            If the disk is full or cannot be written.
        """
        try:
            if self._file is None:
                self._file = self._opened()
            data = np.ascontiguousarray(values, dtype="<f4")
            header = _HEADER.pack(_MARK, int(kind), exchange, *data.shape)
            total = _SUM.pack(zlib.crc32(data.data, zlib.crc32(header)))
            record = b"".join((header, data.data, total))
            written = self._file.write(record)
        except OSError as error:
            raise StateError(
                f"{self.path} cannot be written ({error.strerror or error}). Free some space, or use another "
                "state-dir."
            ) from error
        if written != len(record):
            raise StateError(f"{self.path} cannot be written: the disk is full. Free some space.")
        self.size += written

    def offered(self, exchange: int, values: Values) -> None:
        """Write down what is offered."""
        self.append(Kind.OFFERED, exchange, values)

    def applied(self, exchange: int, values: Values) -> None:
        """Write down what is held instead."""
        self.append(Kind.APPLIED, exchange, values)

    def missed(self, exchange: int, delta: Values) -> None:
        """Write down by how much the anchor moves."""
        self.append(Kind.MISSED, exchange, delta)

    def settled(self, exchange: int, values: Values, delta: Values) -> None:
        """Write down what is held instead, and by how much the anchor moves, as a whole or not at all."""
        self.append(Kind.SETTLED, exchange, np.concatenate([values, delta]))

    def anchored(self, exchange: int, anchor: Anchor) -> None:
        """Write down the whole anchor."""
        chain = np.frombuffer(anchor.chain.to_bytes(8, "little"), dtype="<f4")
        self.append(Kind.ANCHORED, exchange, np.concatenate([anchor.values.reshape(-1), chain])[np.newaxis])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        for _ in self.read():
            pass
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "ab", buffering=0, opener=private_opener)  # noqa: SIM115 (closed by close)
        # Behind half a record nothing would be found.
        file.truncate(self.size)
        return file


class Logs:
    """The logs beside a member's snapshots, each under the name that a snapshot gives it.

    Parameters
    ----------
    folder : Path
        The member's folder.
    least : int, optional
        A log smaller than this many bytes is no reason to save the member in the middle of a round;
        ``LOG_BYTES`` by default.
    """

    def __init__(self, folder: Path, *, least: int | None = None) -> None:
        self._folder = folder
        self._least = LOG_BYTES if least is None else least

    def enough(self, parameters: int) -> int:
        """Return the bytes of a log at which a member with so many parameters is saved: its own, or more."""
        return max(self._least, 4 * parameters)

    def open(self, name: str) -> ExchangeLog:
        """Return a log; it need not be there."""
        return ExchangeLog(self._folder / f"{_PREFIX}{name}")

    def forget(self, keep: Collection[str] = ()) -> None:
        """Remove all logs but these; those of a snapshot that can still be used must be kept."""
        for path in self._folder.glob(f"{_PREFIX}*"):
            if path.name.removeprefix(_PREFIX) not in keep:
                path.unlink(missing_ok=True)


def caught_up(snapshot: Snapshot, logs: Logs) -> tuple[Snapshot, list[Entry]]:
    """Return a snapshot that says how far its log is, and what is to be held besides what it holds."""
    progress, offer = snapshot.progress, snapshot.offer
    entries = list(logs.open(progress.log).read()) if progress.log else []
    for entry in entries:
        if entry.kind is Kind.OFFERED:
            progress, offer = progress.after(offered=entry.exchange), entry.values
        else:
            progress = progress.after(applied=entry.exchange)
    return replace(snapshot, progress=progress, offer=offer), entries


def new_log() -> str:
    """Return a name that no log has had."""
    return secrets.token_hex(8)


def _entry(content: bytes, begin: int) -> Entry | None:
    if len(content) < begin + _HEADER.size:
        return None
    mark, kind, exchange, slots, count = _HEADER.unpack_from(content, begin)
    values_at = begin + _HEADER.size
    end = values_at + 4 * slots * count
    if mark != _MARK or len(content) < end + _SUM.size:
        return None
    if _SUM.unpack_from(content, end)[0] != zlib.crc32(content[begin:end]):
        return None
    values = np.frombuffer(content, dtype="<f4", count=slots * count, offset=values_at)
    return Entry(Kind(kind), exchange, values.reshape(slots, count).astype(np.float32, copy=False))
