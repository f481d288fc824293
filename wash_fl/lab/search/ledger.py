"""What all members together hold: the multiset of values at each coordinate, or their sum."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

from wash_fl.core.dtypes import FLOAT32
from wash_fl.lab.search.device import Held, Run

Keys = list[Any]
"""One number per coordinate, or per coordinate and slot."""

ROUNDING: Final = 0.02
"""How far a sum may be off: what rounding adds up to, and far less than a value that is lost."""


class Ledger(Protocol):
    """What there should be."""

    def keys(self, held: Held) -> Keys:
        """Return what a member holds, shape (slots, size), as it is counted."""

    def put_in(self, keys: Keys) -> None:
        """Add what a member holds."""

    def take_out(self, keys: Keys) -> None:
        """Take away what a member held."""

    def differences(self, held: Sequence[Keys], *, parameters: bool = False) -> list[int]:
        """Return where members hold something else than there should be; ``parameters`` alone, if so."""


class Multisets:
    """Every value exactly as often as it should be there: what a shuffle of float32 leaves as it is."""

    def __init__(self, size: int) -> None:
        self._columns: list[list[int]] = [[] for _ in range(size)]

    def keys(self, held: Held) -> Keys:
        """Return the bits of the values of all slots, by coordinate."""
        bits = np.ascontiguousarray(held, dtype=np.float32).view(np.uint32).astype(np.uint64)
        keys: Keys = (bits[0] if len(bits) == 1 else bits[0] | bits[1] << np.uint64(32)).tolist()
        return keys

    def put_in(self, keys: Keys) -> None:
        """Add what a member holds."""
        for column, key in zip(self._columns, keys, strict=True):
            column.append(key)

    def take_out(self, keys: Keys) -> None:
        """Take away what a member held."""
        for column, key in zip(self._columns, keys, strict=True):
            column.remove(key)

    def differences(self, held: Sequence[Keys], *, parameters: bool = False) -> list[int]:
        """Return the coordinates at which members hold other values."""
        if not held:
            return []
        mask = 0xFFFFFFFF if parameters else (1 << 64) - 1
        should = [sorted(key & mask for key in column) for column in self._columns]
        columns = [sorted(column) for column in zip(*held, strict=True)]
        return [place for place, (a, b) in enumerate(zip(columns, should, strict=True)) if a != b]


class Sums:
    """The sum of all values, but for rounding: what an average, or a shuffle in few bits, leaves as it is."""

    def __init__(self, size: int, slots: int) -> None:
        self._size = size
        self._sums = np.zeros(slots * size)

    def keys(self, held: Held) -> Keys:
        """Return the values, slot after slot."""
        keys: Keys = np.asarray(held, dtype=np.float64).reshape(-1).tolist()
        return keys

    def put_in(self, keys: Keys) -> None:
        """Add what a member holds."""
        self._sums += keys

    def take_out(self, keys: Keys) -> None:
        """Take away what a member held."""
        self._sums -= keys

    def differences(self, held: Sequence[Keys], *, parameters: bool = False) -> list[int]:
        """Return the places at which the sum is another."""
        if not held:
            return []
        should = self._sums[: self._size] if parameters else self._sums
        apart = np.abs(np.sum(np.array(held), axis=0) - should)
        found: list[int] = np.flatnonzero(~(apart < ROUNDING)).tolist()
        return found


def keeps_every_value(run: Run) -> bool:
    """Whether a run conserves values bit for bit, and not their sums."""
    exchange = run.terms.exchange
    return exchange.mix == "shuffle" and exchange.dtype == FLOAT32 and not exchange.average_from


def ledger_for(run: Run) -> Ledger:
    """Return what a run conserves."""
    if keeps_every_value(run):
        return Multisets(run.layout.size)
    return Sums(run.layout.size, len(run.layout.slots))
