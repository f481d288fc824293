"""Optimizer state that can travel with a parameter's value (WASH+Opt)."""

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from wash_fl.config import ExchangeConfig
from wash_fl.core.dtypes import FLOAT32
from wash_fl.errors import LayoutError


def travelling_slots(optimizer: Optimizer, exchange: ExchangeConfig) -> tuple[str, ...]:
    """Return the names of the state tensors that an exchange moves with the values; without WASH+Opt, none.

    Raises
    ------
    LayoutError
        If the optimizer has none that could, or the exchange could take one below 0 that never is: what a
        smaller dtype leaves out, an outer step and the steps of an overlap are added to what is received.
    """
    if not exchange.exchange_optimizer:
        return ()
    slots = optimizer_slots(optimizer)
    adds = {
        f"dtype = {exchange.dtype}": exchange.dtype != FLOAT32,
        "reference = anchor": exchange.anchored,
        "overlap": exchange.overlap,
    }
    named = ", ".join(name for name, does in adds.items() if does)
    if named and (positive := _never_negative(optimizer).intersection(slots)):
        raise LayoutError(
            f"{', '.join(sorted(positive))} of {type(optimizer).__name__} are never below 0, and an exchange "
            f"with {named} could take them there, where they have no square root: use dtype = float32 and "
            "reference = values without overlap, an optimizer such as SGD, or leave exchange-optimizer off."
        )
    return slots


def optimizer_slots(optimizer: Optimizer) -> tuple[str, ...]:
    """Return the names of the state tensors that are floating-point and shaped like their parameter.

    Momentum for SGD, both moments for Adam; found by letting the optimizer take one step on a parameter of
    its own, so any :mod:`torch.optim` class works.

    Raises
    ------
    LayoutError
        If parameter groups keep different state: each coordinate must have the same slots.
    """
    found = {tuple(sorted(_slots_of(_probe(optimizer, group)))) for group in optimizer.param_groups}
    if len(found) != 1:
        raise LayoutError(
            f"the optimizer's parameter groups keep different state {sorted(found)}; exchange-optimizer "
            "needs the same in every group. Use one setting, or leave exchange-optimizer off."
        )
    return found.pop()


def slot_tensors(
    optimizer: Optimizer, parameters: Sequence[nn.Parameter], slots: Sequence[str]
) -> list[list[torch.Tensor]]:
    """Return the state tensors of each slot, one per parameter; absent ones are made as the optimizer would.

    A parameter has no state before its first step, or if it never had a gradient.

    Raises
    ------
    LayoutError
        If a parameter is not in the optimizer, and so has no state that could be exchanged.
    """
    if slots:
        held = {id(each) for group in optimizer.param_groups for each in group["params"]}
        for parameter in parameters:
            if id(parameter) not in held:
                raise LayoutError(
                    f"a trainable parameter of shape {list(parameter.shape)} is not in the optimizer, which "
                    "exchange-optimizer needs: give it to the optimizer, or freeze it."
                )
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                if any(state.get(slot) is None for slot in slots):
                    fresh = _probe(optimizer, group)
                    if "step" in fresh:
                        # The probe took a step that this parameter did not: Adam corrects its bias by it.
                        fresh["step"] = fresh["step"] * 0
                    optimizer.state[parameter] = {
                        key: torch.full_like(parameter, value[0, 0].item()) if key in slots else value
                        for key, value in fresh.items()
                    }
    return [[optimizer.state[parameter][slot] for parameter in parameters] for slot in slots]


_PROBE_SHAPE = (2, 3)


def _never_negative(optimizer: Optimizer) -> set[str]:
    """Return the names of the state tensors that have the same sign whatever the gradient's is."""
    found = set()
    for group in optimizer.param_groups:
        down, up = (_probe(optimizer, group, gradient) for gradient in (-1.0, 1.0))
        found |= {key for key in _slots_of(up) if down[key].min() >= 0 and up[key].min() >= 0}
    return found


def _probe(optimizer: Optimizer, group: dict[str, Any], gradient: float = 0.0) -> dict[str, Any]:
    """Return the state that an optimizer makes in one step for a parameter with such a gradient everywhere.

    Raises
    ------
    LayoutError
        If it cannot take such a step.
    """
    parameter = nn.Parameter(torch.zeros(_PROBE_SHAPE))
    parameter.grad = torch.full(_PROBE_SHAPE, gradient)
    twin = copy.copy(optimizer)
    # An optimizer copies its state alone: what a user's own class keeps besides is needed as well.
    twin.__dict__ = optimizer.__dict__ | twin.__dict__
    # A learning-rate scheduler replaces step by one bound to the original.
    twin.__dict__.pop("step", None)
    twin.param_groups = [{**group, "params": [parameter], "fused": False}]
    twin.state = defaultdict(dict)
    try:
        twin.step()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LayoutError(
            f"exchange-optimizer does not work with {type(optimizer).__name__} ({reason}): use another "
            "optimizer, or leave exchange-optimizer off."
        ) from error
    return dict(twin.state[parameter])


def _slots_of(state: dict[str, Any]) -> list[str]:
    return [
        key
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.shape == _PROBE_SHAPE
    ]
