"""A budget: the part of FedAvg's bytes that a method may use, and the knob that it chooses for it by rule.

FedAvg's bytes are those of every round with all values, as float32, up and down. A rule has to say what it
takes before anything is trained; what was really sent is counted as always (:mod:`wash_fl.lab.compare.post`),
and stands in the table beside the knob.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from wash_fl.config import RunConfig
from wash_fl.core.layout import Layout
from wash_fl.core.packet import packet_size
from wash_fl.core.recipes import resolve
from wash_fl.errors import ConfigError, WashError
from wash_fl.member.parameters import model_layout
from wash_fl.member.slots import travelling_slots
from wash_fl.member.state_dict import state_arrays
from wash_fl.member.training import make_optimizer
from wash_fl.tasks.division import is_divided
from wash_fl.tasks.models import initial_model
from wash_fl.tasks.task import load_task

NEAR: Final = 0.05
"""Bytes that differ from a budget by so small a part of it meet it."""

HALVINGS: Final = 40


class OverBudgetError(WashError):
    """A method cannot meet a budget; the message says why."""


@dataclass(frozen=True)
class Run:
    """What a rule has to know of a run.

    Attributes
    ----------
    config : RunConfig
        Its options, with choices in place of ``auto``.
    layout : Layout
        What slices are of.
    model_bytes : int
        Of a whole state dict.
    """

    config: RunConfig
    layout: Layout
    model_bytes: int

    @classmethod
    def of(cls, config: RunConfig) -> "Run":
        """Return what is to know of a run with these options."""
        task = load_task(config.task.task)
        config = resolve(config, divided=is_divided(task, config))
        model = initial_model(config.task.model, task, config.training.seed)
        slots = travelling_slots(make_optimizer(model, config.training), config.exchange)
        size = sum(each.nbytes for each in state_arrays(model).values())
        return cls(config, model_layout(model, slots), size)

    @cached_property
    def rounds(self) -> int:
        """How many rounds it has."""
        return self.config.training.rounds

    @property
    def fedavg_bytes(self) -> int:
        """What FedAvg sends in it, per member, up and down."""
        return fedavg_bytes(self.rounds, self.model_bytes)

    def packet(self, payload: int) -> int:
        """Return the bytes of a packet with so many bytes of values or what stands for them."""
        return packet_size(self.layout, payload)


def fedavg_bytes(rounds: int, model_bytes: int) -> int:
    """Return what FedAvg sends per member, up and down, with all values as float32 in every round."""
    return 2 * rounds * model_bytes


@dataclass(frozen=True)
class Choice:
    """A method's knob.

    Attributes
    ----------
    changes : dict of str to object
        Its values, by name.
    bytes : float
        What they take per member, up and down.
    """

    changes: Mapping[str, Any]
    bytes: float


@dataclass(frozen=True)
class Fit:
    """How a method chooses its knob for so many bytes.

    Attributes
    ----------
    rule : str
        In one sentence.
    keys : tuple of str
        The options it chooses, which nobody else can give then.
    choose : callable
        Returns the choice that is nearest to some bytes, per member, up and down.
    """

    rule: str
    keys: tuple[str, ...]
    choose: Callable[[Run, float], Choice]

    def to(self, run: Run, budget: float) -> Choice:
        """Return the choice for a part of FedAvg's bytes.

        Raises
        ------
        OverBudgetError
            If the nearest that there is departs by more than 5 % from it.
        """
        choice = self.choose(run, budget * run.fedavg_bytes)
        part = choice.bytes / run.fedavg_bytes
        if not near(part, budget):
            knob = ", ".join(f"{key} = {value}" for key, value in choice.changes.items())
            raise OverBudgetError(
                f"the nearest it can send is {part:.3g} of FedAvg's bytes" + (f" ({knob})" if knob else "")
            )
        return choice


def near(part: float, budget: float) -> bool:
    """Return whether bytes, as a part of FedAvg's, meet a budget."""
    # What is 5 % away in decimals must not fail by how a float is rounded.
    return abs(part - budget) <= NEAR * budget * (1 + 1e-9)


def read_budget(text: str) -> float:
    """Return a budget from what was typed.

    Raises
    ------
    ConfigError
        If it is no part.
    """
    try:
        budget = float(text)
    except ValueError:
        budget = math.nan
    if not 0.0 < budget <= 1.0:
        raise ConfigError(
            f"budget = {text!r} is not allowed: it is a part of FedAvg's bytes, above 0 and at most 1; try "
            "0.05."
        )
    return budget


def times(run: Run, allowed: float, each: float) -> Choice:
    """Return how often something of ``each`` bytes can be sent: at least once, at most after every step."""
    most = run.rounds * run.config.training.local_steps
    count = max(1, min(most, round(allowed / each)))
    every = float(f"{run.rounds / count:.6g}")
    return Choice({"every-rounds": int(every) if every.is_integer() else every}, count * each)


def nearest(allowed: float, most: float, spend: Callable[[float], float]) -> tuple[float, float]:
    """Return the value from 0 to ``most`` whose bytes are nearest to some, by bisection, and its bytes.

    Parameters
    ----------
    allowed : float
        Bytes.
    most : float
        The largest value.
    spend : callable
        The bytes of a value, which never fall with it.
    """
    low, high = 0.0, most
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if spend(middle) > allowed else (middle, high)
    value = min((low, high), key=lambda each: abs(spend(each) - allowed))
    rounded = float(f"{value:.6g}")
    return rounded, spend(rounded)


WHOLE: Final = Fit(
    "as often as whole float32 models fit into the bytes, by division",
    ("every-rounds",),
    lambda run, allowed: times(run, allowed, 2 * run.model_bytes),
)
