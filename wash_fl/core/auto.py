"""What ``auto`` and ``paper`` stand for: a schedule over depth, a mix, and among whom.

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


def chosen(exchange: ExchangeConfig) -> ExchangeConfig:
    """Return an exchange's options with a schedule, a mix and a topology in place of ``auto`` and ``paper``.

    Options without these are returned as they are. A mix that is open is a shuffle if other options are a
    shuffle's alone.
    """
    paper = exchange.schedule == "paper"
    schedule = {"paper": "decreasing", "auto": SCHEDULE}.get(exchange.schedule, exchange.schedule)
    mix = exchange.mix
    if mix == "auto":
        shuffles = exchange.topology == "permutation" or exchange.average_from > 0
        mix = "shuffle" if shuffles or (paper and exchange.topology != "all") else MIX
    topology = exchange.topology
    if topology == "auto":
        topology = "pairs" if mix == "shuffle" else "all"
    return dataclasses.replace(exchange, schedule=schedule, mix=mix, topology=topology)


def with_choices(config: RunConfig) -> RunConfig:
    """Return a run's options with those of its exchange :func:`chosen`."""
    return dataclasses.replace(config, exchange=chosen(config.exchange))
