"""Whether a training loop's learning-rate scheduler is kept with its member.

An optimizer's rate is kept from round to round. A scheduler that is not would begin again in each, and bend
that rate by the factors of its first steps. So it has to be handed over, and one that is not is noticed:
PyTorch's schedulers write ``initial_lr`` into the optimizer's groups, and one that does not
(``ReduceLROnPlateau``) is found by what the training loop refers to.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from wash_fl.errors import ConfigError
from wash_fl.member.stateful import States

MARK: Final = "initial_lr"
"""What a scheduler writes into each group of its optimizer."""

HAND_OVER: Final = 'hand it over, Participant(..., state={"schedule": schedule})'

_DEPTH: Final = 6
"""How deep a scheduler may be within what refers to it: as one of a sequence, in a list of a trainer."""
_WIDTH: Final = 1000
"""Entries of a list that is looked through; a longer one holds data."""


def check_handed_over(optimizer: Optimizer, states: States, train: Callable[..., object]) -> None:
    """Check that the schedulers of a client's loop are kept; before anything is restored.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The member's.
    states : mapping of str to Stateful
        What is handed over.
    train : callable
        The loop.

    Raises
    ------
    ConfigError
        If a scheduler is attached to an optimizer and not handed over, or one that is handed over belongs to
        another optimizer.
    """
    optimizers = kept_optimizers(optimizer, states)
    for name, each in states.items():
        its = getattr(each, "optimizer", None)
        if isinstance(its, Optimizer) and not any(same_optimizer(its, own) for own in optimizers):
            raise ConfigError(
                f"state[{name!r}], a {type(each).__name__}, belongs to another optimizer than the "
                "Participant's: make it over the one that the Participant gets."
            )
    kept = _kept(states)
    for own in optimizers:
        if any(MARK in group for group in own.param_groups) and not _has_scheduler(own, kept):
            raise _unkept("a learning-rate scheduler")
        for used in _reached([train]):
            if _is_scheduler(used, own) and not any(used is other for other in kept):
                raise _unkept(f"a learning-rate scheduler ({type(used).__name__})")


@contextmanager
def none_is_made(optimizer: Optimizer, states: States) -> Iterator[None]:
    """Check that what runs within makes no scheduler for the optimizer, unless one is handed over.

    Raises
    ------
    ConfigError
        At the end, if it does.
    """
    if _has_scheduler(optimizer, _kept(states)):
        yield
        return
    for group in optimizer.param_groups:
        group.pop(MARK, None)  # restored, with the state of a client that had a scheduler once
    yield
    if any(MARK in group for group in optimizer.param_groups):
        raise ConfigError(
            "train() makes a learning-rate scheduler, which begins again in each round, while the "
            f"optimizer's rate is kept: make it where the optimizer is made, and {HAND_OVER}."
        )


def kept_optimizers(optimizer: Optimizer, states: States) -> list[Optimizer]:
    """Return a member's optimizer, and those that are handed over with it."""
    return [optimizer, *(each for each in states.values() if isinstance(each, Optimizer))]


def _unkept(what: str) -> ConfigError:
    return ConfigError(
        f"{what} is attached to the optimizer and would begin again in each round, while the optimizer's "
        f"rate is kept: {HAND_OVER}."
    )


def same_optimizer(one: Optimizer, other: Optimizer) -> bool:
    """Return whether two optimizers are one, or one wraps the other: they share a group."""
    groups = {id(group) for group in other.param_groups}
    return any(id(group) in groups for group in one.param_groups)


def _has_scheduler(optimizer: Optimizer, kept: Iterable[object]) -> bool:
    return any(isinstance(each, Optimizer) and same_optimizer(each, optimizer) for each in kept)


def _is_scheduler(value: object, optimizer: Optimizer) -> bool:
    return isinstance(value, LRScheduler) and same_optimizer(value.optimizer, optimizer)


def _kept(states: States) -> list[object]:
    """Return what is handed over, but optimizers, and what it refers to."""
    return _reached(each for each in states.values() if not isinstance(each, Optimizer))


def _reached(values: Iterable[object]) -> list[object]:
    """Return objects, and what they refer to."""
    seen: dict[int, object] = {}
    level = list(values)
    for _ in range(_DEPTH):
        new = {id(each): each for each in level if id(each) not in seen}
        seen |= new
        level = [inner for each in new.values() for inner in _parts(each)]
    return list(seen.values())


def _parts(value: object) -> list[Any]:
    """Return what an object refers to, as far as a scheduler may be there."""
    if isinstance(value, (Optimizer, nn.Module, torch.Tensor, type, ModuleType)):
        return []
    if isinstance(value, (list, tuple, dict)):
        parts = value.values() if isinstance(value, dict) else value
        return list(parts) if len(value) <= _WIDTH else []
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, FunctionType):
        return list(_references(value))
    return list(getattr(value, "__dict__", {}).values())


def _references(function: FunctionType) -> Iterator[object]:
    """Yield what a function's code can refer to by name, from around it."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield function.__globals__[name]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)
