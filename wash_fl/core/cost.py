"""The bytes that a run's slices take, before anything is trained."""

from dataclasses import dataclass
from typing import Final

from wash_fl.config import ExchangeConfig
from wash_fl.core.codec import delivery_dtype, encoded_size
from wash_fl.core.draw import Draw
from wash_fl.core.layout import Layout
from wash_fl.core.packet import packet_size
from wash_fl.core.plane import plane_of
from wash_fl.core.schedule import Schedule

MOST_DRAWS: Final = 64
"""Exchanges whose sizes are looked at: they are alike, and a run may have very many."""

_FLOAT32_BYTES: Final = 4


@dataclass(frozen=True)
class Cost:
    """Expected bytes of one member over a run, its initial and final model not counted.

    Attributes
    ----------
    up, down : float
        The packets that it offers, and that it receives, in every exchange.
    fedavg : float
        What FedAvg would send in each direction: every value as float32, once a round.
    """

    up: float
    down: float
    fedavg: float


def cost_of_run(
    layout: Layout,
    exchange: ExchangeConfig,
    rounds: int,
    local_steps: int,
    *,
    seed: int = 0,
    exchanges: int | None = None,
) -> Cost:
    """Return the bytes that a member of a run is expected to send and to receive.

    Parameters
    ----------
    layout : Layout
        What is exchanged.
    exchange : ExchangeConfig
        How.
    rounds, local_steps : int
        Rounds of the run, and optimizer steps per round.
    seed : int
        The run seed.
    exchanges : int, optional
        How many of the run's exchanges take place; by default all.
    """
    draw = Draw(seed, layout, Schedule.between(exchange, rounds, local_steps))
    if exchanges is None:
        exchanges = plane_of(exchange).exchanges(exchange, rounds, local_steps)
    numbers = sorted({1 + index * exchanges // MOST_DRAWS for index in range(MOST_DRAWS if exchanges else 0)})
    slots, up, down = len(layout.slots), 0, 0
    for number in numbers:
        if count := draw.count(number):
            dtype = delivery_dtype(draw.schedule.options_at(number))
            up += packet_size(layout, encoded_size(exchange.dtype, slots, count), chained=exchange.anchored)
            down += packet_size(layout, encoded_size(dtype, slots, count))
    scale = exchanges / max(1, len(numbers))
    return Cost(up * scale, down * scale, float(rounds * layout.size * _FLOAT32_BYTES))
