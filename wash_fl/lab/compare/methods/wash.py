"""WASH and its nearest relations: slices change places, or are averaged."""

import dataclasses
from typing import Final

from wash_fl.core.cost import cost_of_run
from wash_fl.core.plane import plane_of
from wash_fl.lab.compare.budget import Choice, Fit, Run, nearest
from wash_fl.lab.compare.methods.method import Method, shuffled

KEYS: Final = ("p",)


def part_for(p: float, part: float) -> float:
    """Return the part of a run that holds the slices of p over all of it: the one given, or a larger one."""
    return max(p, part)


def choose_p(run: Run, allowed: float, part: float = 1.0) -> Choice:
    """Return the p whose slices are nearest to some bytes per member, up and down.

    Parameters
    ----------
    run : Run
        What is trained.
    allowed : float
        The bytes.
    part : float
        In which part of the run slices are exchanged, with p over it.
    """
    training, exchange = run.config.training, run.config.exchange
    exchanges = plane_of(exchange).exchanges(exchange, training.rounds, training.local_steps)

    def spend(p: float) -> float:
        own_part = part_for(p, part)
        own = dataclasses.replace(exchange, p=p / own_part)
        count = round(own_part * exchanges)
        rounds, steps = training.rounds, training.local_steps
        cost = cost_of_run(run.layout, own, rounds, steps, seed=training.seed, exchanges=count)
        return cost.up + cost.down

    p, spent = nearest(allowed, 1.0, spend)
    return Choice({"p": p}, spent)


FIT: Final = Fit("p by bisection, at the run's dtype", KEYS, choose_p)

WASH = Method("wash", "Fournier et al. 2024; slices between pairs, once per round", shuffled, fit=FIT)
WASH_OPT = Method(
    "wash-opt", "Fournier et al. 2024, WASH+Opt", shuffled, {"exchange-optimizer": True}, fit=FIT
)
SPARTA = Method(
    "sparta",
    "Exo Labs 2025: random coordinates, everywhere equally probable, are averaged",
    shuffled,
    {"mix": "average", "topology": "all", "schedule": "constant"},
    fit=FIT,
)
