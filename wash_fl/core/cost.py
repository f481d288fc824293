"""The bytes that a run's slices are expected to take, before anything is trained."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from wash_fl.config import ExchangeConfig
from wash_fl.core.codec import delivery_dtype, encoded_size
from wash_fl.core.layout import Layout
from wash_fl.core.plane import plane_of
from wash_fl.core.schedule import ONE, Schedule

PACKET_BYTES: Final = 100
"""What a packet has beside its values, about."""

_FLOAT32_BYTES: Final = 4
_MOST_EXCHANGES: Final = 64
"""Exchanges that are looked at, evenly over the run."""


@dataclass(frozen=True)
class Cost:
    """Expected bytes of one member over a run, its initial and final model not counted.

    Attributes
    ----------
    up, down : float
        What it offers, and what it receives, in every exchange.
    fedavg : float
        What FedAvg would send in each direction: every value as float32, once a round.
    """

    up: float
    down: float
    fedavg: float


def cost_of_run(layout: Layout, exchange: ExchangeConfig, rounds: int, local_steps: int) -> Cost:
    """Return the bytes that a member of a run is expected to send and to receive.

    Parameters
    ----------
    layout : Layout
        What is exchanged.
    exchange : ExchangeConfig
        How.
    rounds, local_steps : int
        Rounds of the run, and optimizer steps per round.
    """
    schedule = Schedule.between(exchange, rounds, local_steps)
    exchanges = plane_of(exchange).exchanges(exchange, rounds, local_steps)
    looked_at = np.unique(np.linspace(1, exchanges, _MOST_EXCHANGES).round().astype(int)).tolist()
    slots, up, down = len(layout.slots), 0, 0
    for number in looked_at:
        probabilities = schedule.fixed_point(layout, number).astype(np.float64) / ONE
        count = round(float(probabilities @ layout.sizes))
        up += encoded_size(exchange.dtype, slots, count) + PACKET_BYTES
        down += encoded_size(delivery_dtype(exchange), slots, count) + PACKET_BYTES
    scale = exchanges / len(looked_at)
    return Cost(up * scale, down * scale, float(rounds * layout.size * _FLOAT32_BYTES))
