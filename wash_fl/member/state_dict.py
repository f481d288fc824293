"""A model's whole state dict: as arrays and back, and what becomes of each entry in an average."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm as SpectralNormHook

from wash_fl.core.rules import Rule, SpectralNorm, StateRules
from wash_fl.errors import LayoutError
from wash_fl.member.sharing import Memory, first_names, memory_of, refuse_overlaps
from wash_fl.storage.weights_file import weights_bytes


def array_of(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor as an array in C order; its own memory where that is possible."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    array: NDArray[Any] = plain.contiguous().numpy()
    return array


def state_arrays(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Return a model's state dict as arrays, under all names; not copied where that is possible."""
    return {name: array_of(each) for name, each in model.state_dict().items()}


def load_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a whole state dict into a model; an entry with several names gets the first one's array.

    Raises
    ------
    RuntimeError
        PyTorch's, if it is of another model.
    """
    first = first_names(model)
    model.load_state_dict(
        {name: torch.from_numpy(np.array(arrays[_source(name, first, arrays)])) for name in arrays}
    )


def _source(name: str, first: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> str:
    canonical = first.get(name, name)
    return canonical if canonical in arrays else name


def state_rules(model: nn.Module, trained: Iterable[nn.Parameter]) -> StateRules:
    """Return what becomes of each entry of a model's state dict when members are averaged.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    trained : iterable of torch.nn.Parameter
        What its members exchange.

    Raises
    ------
    LayoutError
        If the model could not be handed in and averaged at the end.
    """
    state: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    for name, entry in state.items():
        _check_collectable(name, entry)
    refuse_overlaps(state)
    by_memory: dict[Memory, str] = {}
    first = {name: by_memory.setdefault(memory_of(entry), name) for name, entry in state.items()}
    rules = {name: _rule_of(state[name]) for name in first.values()}
    statistics = _statistics(model, by_memory)
    rules |= {name: rule for name, rule in statistics.items() if rules[name] is Rule.MEMBER}
    spectral = tuple(_spectral_norms(model, by_memory))
    rules |= {name: Rule.SPECTRAL for each in spectral for name in (each.u, each.v)}
    for parameter in trained:
        if memory_of(parameter) not in by_memory:
            raise LayoutError(
                f"the model's state dict leaves out a parameter of shape {list(parameter.shape)} that is "
                "trained, and that could not be handed in at the end: let state_dict() return it, or freeze "
                "it."
            )
        rules[by_memory[memory_of(parameter)]] = Rule.TRAINED
    return StateRules(rules, first, spectral)


def _rule_of(entry: torch.Tensor) -> Rule:
    """Return the rule of an entry of which nothing else is known."""
    if not entry.is_floating_point():
        return Rule.COUNTER
    return Rule.FROZEN if isinstance(entry, nn.Parameter) else Rule.MEMBER


def batchnorm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the BatchNorm layers whose statistics follow the data, by name.

    A layer that its model keeps in evaluation mode even while training is frozen, and left out.
    """
    was_training = {module: module.training for module in model.modules()}
    model.train()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.training
    }
    for module, training in was_training.items():
        module.training = training
    return layers


def _statistics(model: nn.Module, by_memory: Mapping[Any, str]) -> dict[str, Rule]:
    """Return the rules of running means and variances, by first name.

    Those of BatchNorm follow the data. Those of InstanceNorm, and of other modules that call theirs so, are
    averaged: the mean of means is a mean.
    """
    rules: dict[str, Rule] = {}
    followed = set(batchnorm_layers(model).values())
    for module in model.modules():
        mean, variance = (getattr(module, name, None) for name in ("running_mean", "running_var"))
        if isinstance(mean, torch.Tensor) and isinstance(variance, torch.Tensor):
            rule = Rule.BATCHNORM if module in followed else Rule.AVERAGED
            for entry in (mean, variance):
                if memory_of(entry) in by_memory:
                    rules[by_memory[memory_of(entry)]] = rule
    return rules


def _spectral_norms(model: nn.Module, by_memory: Mapping[Any, str]) -> Iterable[SpectralNorm]:
    """Yield a model's spectral norms, of both kinds that PyTorch has, whose weight is in the state dict."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, SpectralNormHook):
                entries = [getattr(module, f"{hook.name}_{part}", None) for part in ("orig", "u", "v")]
                yield from _spectral_norm(entries, hook.dim, hook.eps, by_memory)
        if isinstance(module, ParametrizationList):
            # Only the first one is of the weight that is kept; what those after it get is nowhere.
            norm = module[0]
            if isinstance(norm, parametrizations._SpectralNorm):
                entries = [getattr(module, "original", None), *(getattr(norm, n, None) for n in ("_u", "_v"))]
                yield from _spectral_norm(entries, norm.dim, norm.eps, by_memory)


def _spectral_norm(
    entries: list[Any], dim: int, eps: float, by_memory: Mapping[Any, str]
) -> Iterable[SpectralNorm]:
    names = [by_memory.get(memory_of(entry)) for entry in entries]
    weight, u, v = names
    if weight is not None and u is not None and v is not None:
        yield SpectralNorm(weight, u, v, dim, eps)


def _check_collectable(name: str, entry: object) -> None:
    if not isinstance(entry, torch.Tensor):
        raise LayoutError(
            f"{name!r} in the model's state dict is {type(entry).__name__}, and only tensors can be handed "
            "in at the end: leave it out of the state dict."
        )
    refuse_lazy(name, entry)
    if entry.layout != torch.strided or entry.is_meta or entry.is_quantized:
        kind = "quantized" if entry.is_quantized else "without values" if entry.is_meta else "sparse"
        raise LayoutError(
            f"{name!r} in the model's state dict is {kind}, and cannot be handed in at the end: make it a "
            "plain tensor, or register it with persistent=False."
        )
    if not _can_be_written(entry.dtype):
        raise LayoutError(
            f"{name!r} is {str(entry.dtype).removeprefix('torch.')}, and cannot be handed in at the end: "
            "convert it with .float() or .half(), also if it is frozen."
        )


def refuse_lazy(name: str, entry: torch.Tensor) -> None:
    """Refuse a tensor whose shape is not known before the first batch.

    Raises
    ------
    LayoutError
        If it is one.
    """
    if is_lazy(entry):
        raise LayoutError(
            f"{name!r} has no shape yet: give its module the sizes (nn.Linear instead of nn.LazyLinear), or "
            "let model() run one batch through the model."
        )


@cache
def _can_be_written(dtype: torch.dtype) -> bool:
    """Whether NumPy and safetensors know a dtype."""
    try:
        weights_bytes({"": torch.empty(0, dtype=dtype).numpy()})
    except (TypeError, SafetensorError):
        return False
    return True
