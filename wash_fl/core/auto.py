"""What ``auto``, ``paper`` and a run length of 0 stand for: a schedule over depth, a mix, a run length.

``auto`` is what gave the best averaged model for equal bytes in ``docs/evidence.md``: the same for every
way of dividing the data.
"""

import dataclasses
from typing import Final

from wash_fl.config import ExchangeConfig, RunConfig

SCHEDULE: Final = "size-aware"
"""As many values from every tensor: small ones, among them the classifier's, are exchanged often and for
nearly no bytes."""

MIX: Final = "average"
"""Where labels are skewed, what one member has unlearned is better averaged away. Where they are not,
shuffled slices keep the members different, and more of them are needed to keep the members together."""


RUN_LENGTHS: Final = {"shuffle": 1, "average": 16}
"""By mix: an average loses nothing by runs, and 16 values of float32 are a cache line."""


def run_length(exchange: ExchangeConfig) -> int:
    """Return how many consecutive values are drawn together, where 0 leaves it open."""
    return exchange.run_length or RUN_LENGTHS[chosen(exchange).mix]


def chosen(exchange: ExchangeConfig) -> ExchangeConfig:
    """Return an exchange's options with a schedule and a mix in place of ``auto`` and ``paper``.

    Options without these are returned as they are.
    """
    paper = exchange.schedule == "paper"
    schedule = {"paper": "decreasing", "auto": SCHEDULE}.get(exchange.schedule, exchange.schedule)
    mix = exchange.mix
    if mix == "auto":
        mix = "shuffle" if paper else MIX
    return dataclasses.replace(exchange, schedule=schedule, mix=mix)


def with_choices(config: RunConfig) -> RunConfig:
    """Return a run's options with those of its exchange :func:`chosen`."""
    return dataclasses.replace(config, exchange=chosen(config.exchange))
