"""Whether a training loop steps the optimizer that it was given: no other one is kept with the member.

A loop that makes an optimizer of its own, as many do, trains all the same, but with momentum that begins anew
in each round, and nobody sees it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from wash_fl.errors import ConfigError
from wash_fl.member.schedules import kept_optimizers, same_optimizer
from wash_fl.member.stateful import States

logger = logging.getLogger("flwr.wash_fl")

_LOOKED_AT: Final = 64
"""Values of each parameter by which it is seen whether it has changed."""


@contextmanager
def own_steps(optimizer: Optimizer, states: States, model: nn.Module) -> Iterator[None]:
    """Check that what runs within steps a member's optimizer, and none that is not kept over its parameters.

    Whoever changes the parameters without any optimizer may. Of a loop that changes nothing there is a word
    in the log.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The member's.
    states : mapping of str to Stateful
        What else is kept, other optimizers among it.
    model : torch.nn.Module
        The member's.

    Raises
    ------
    ConfigError
        At the end, if another optimizer was stepped.
    """
    kept = kept_optimizers(optimizer, states)
    own = {id(parameter) for parameter in model.parameters()}
    stepped: list[Optimizer] = []

    def note(which: Optimizer, *_: Any) -> None:
        parameters = (each for group in which.param_groups for each in group["params"])
        if not any(which is each for each in stepped) and any(id(each) in own for each in parameters):
            stepped.append(which)

    before = _glimpse(model)
    hook = register_optimizer_step_post_hook(note)
    try:
        yield
    finally:
        hook.remove()
    other = next((each for each in stepped if not any(same_optimizer(each, mine) for mine in kept)), None)
    if other is not None:
        kind = type(other).__name__
        raise ConfigError(
            f"train() steps an optimizer of its own ({kind}), which begins anew in each round, while that of "
            "the Participant is kept: use that one in train(), or hand the other over, "
            'Participant(..., state={"optimizer": other}).'
        )
    if not stepped and not _may_skip(states) and _glimpse(model) == before:
        logger.warning(
            "train() took no step and changed nothing: call step() of the Participant's optimizer, "
            "and look whether there are data to train on"
        )


def _may_skip(states: States) -> bool:
    """Whether a gradient scaler is among what is kept: its first steps are often left out."""
    return any(hasattr(each, "unscale_") for each in states.values())


def _glimpse(model: nn.Module) -> list[bytes]:
    """Return a few values of each parameter, as they are in memory."""
    return [
        each.detach().reshape(-1)[:_LOOKED_AT].to("cpu", torch.float32).numpy().tobytes()
        for each in model.parameters()
    ]
