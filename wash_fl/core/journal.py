"""Where the escrow writes down what it decided, before anyone hears of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Delivery:
    """What a member receives for its offer, until it is acknowledged.

    Attributes
    ----------
    exchange : int
        Number of the exchange it settles.
    values : ndarray of float32, shape (slots, count)
        The member's new values at the coordinates of that exchange.
    """

    exchange: int
    values: NDArray[np.float32]


class Journal(Protocol):
    """A record of settled exchanges and of deliveries that are not acknowledged."""

    def settled(self, exchange: int, deliveries: Mapping[int, Delivery]) -> None:
        """Record a settled exchange and its deliveries by member, all or nothing."""

    def acknowledged(self, member: int) -> None:
        """Record that a member applied its delivery."""

    def restore(self) -> tuple[int, dict[int, Delivery]]:
        """Return the last settled exchange (0 if none) and the deliveries not acknowledged, by member."""


@dataclass
class MemoryJournal:
    """A journal that lives as long as the process."""

    last: int = 0
    pending: dict[int, Delivery] = field(default_factory=dict)

    def settled(self, exchange: int, deliveries: Mapping[int, Delivery]) -> None:
        """Record a settled exchange."""
        self.last = exchange
        self.pending.update(deliveries)

    def acknowledged(self, member: int) -> None:
        """Forget the member's delivery."""
        self.pending.pop(member, None)

    def restore(self) -> tuple[int, dict[int, Delivery]]:
        """Return what is recorded."""
        return self.last, dict(self.pending)
