"""What ``auto`` and ``paper`` stand for: a schedule over depth and a mix that go with a way of dividing data.

The choices are those that gave the best averaged model for equal bytes in ``docs/evidence.md``.
"""

import dataclasses
from typing import Final

from wash_fl.config import ExchangeConfig

OWN: Final = "own"
"""How data is divided when each device brings its own: nobody knows."""

SCHEDULE: Final = "size-aware"
"""As many values from every tensor: small ones, among them the classifier's, then change places often and for
nearly no bytes."""

MIX: Final = {"shared": "shuffle", "iid": "shuffle", "dirichlet": "average", OWN: "average"}
"""Where members see the same distribution, shuffled slices keep them different; where labels are skewed, what
one member has unlearned is better averaged away."""


def chosen(exchange: ExchangeConfig, division: str) -> ExchangeConfig:
    """Return an exchange's options with a schedule and a mix in place of ``auto`` and ``paper``.

    Options without these are returned as they are.

    Parameters
    ----------
    exchange : ExchangeConfig
        The options.
    division : str
        How the members' examples are divided: as the option ``division`` says, or :data:`OWN`.
    """
    paper = exchange.schedule == "paper"
    schedule = {"paper": "decreasing", "auto": SCHEDULE}.get(exchange.schedule, exchange.schedule)
    mix = exchange.mix
    if mix == "auto":
        mix = "shuffle" if paper else MIX[division]
    return dataclasses.replace(exchange, schedule=schedule, mix=mix)
