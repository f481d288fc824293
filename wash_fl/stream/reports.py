"""What is told of an exchange on the stream plane."""

from collections.abc import Callable
from dataclasses import dataclass

from wash_fl.protocol.escrow import Settlement


@dataclass(frozen=True)
class ExchangeReport:
    """What happened in an exchange.

    Attributes
    ----------
    settlement : Settlement
        Who took part, and how far apart the members are.
    seconds : float
        From its first offer until it was settled.
    bytes : dict of str to list of int
        By member, since the exchange before: payload (values) and protocol (the rest of the messages) up,
        then the same down. What a delivery carried counts where it travelled: after its exchange.
    """

    settlement: Settlement
    seconds: float
    bytes: dict[str, list[int]]


OnExchange = Callable[[ExchangeReport], None]
