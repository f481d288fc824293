"""A copy of a model that torch can export: on the CPU, without wrappers, with its computed weights stored."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Final

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from wash_fl.errors import ExportError
from wash_fl.export.text import first_line

_REGISTERED: Final = ("_parameters", "_buffers", "_modules")


def exportable(model: nn.Module) -> nn.Module:
    """Return a copy of a model on the CPU that answers as it does; the model is not changed.

    What ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` have put around modules is left
    out. Weights that are computed from others whenever the model is called (weight norm, spectral norm,
    pruning, any parametrization) are computed once and stored, for a device would do that at each answer.

    Raises
    ------
    ExportError
        If the model is TorchScript, or holds what cannot be copied.
    """
    model = _unwrapped(model)
    if any(isinstance(each, torch.jit.ScriptModule) for each in model.modules()):
        raise ExportError("the model is TorchScript: give the torch.nn.Module that it was made from.")
    # A tensor that was computed from parameters cannot be copied, and .to() does not move plain attributes.
    memo: dict[int, Any] = {
        id(tensor): tensor.detach().cpu().clone()
        for tensor in _plain_tensors(model)
        if not tensor.is_leaf or tensor.device.type != "cpu"
    }
    try:
        twin: nn.Module = copy.deepcopy(model, memo).to("cpu")
    except Exception as error:  # an attribute may be anything
        raise ExportError(
            f"the model cannot be copied ({type(error).__name__}: {first_line(error)}): keep what is neither "
            "a module nor a tensor out of it, such as files, locks and threads."
        ) from error
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if _unwrapped(child) is not child:
                setattr(module, name, _unwrapped(child))
        with torch.no_grad():
            _store_computed(module)
    return twin


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        inner = getattr(model, "_orig_mod", None)  # torch.compile's
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _plain_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the tensors that are attributes of modules, or in lists and dicts there, and not registered."""
    for module in model.modules():
        yield from _tensors(each for name, each in vars(module).items() if name not in _REGISTERED)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _store_computed(module: nn.Module) -> None:
    if parametrize.is_parametrized(module):
        _store_parametrized(module)
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            nn.utils.remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            nn.utils.remove_spectral_norm(module, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]


def _store_parametrized(module: nn.Module) -> None:
    # Not torch's remove_parametrizations: it takes the property from the class, which the model still needs.
    parametrizations = module.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    values = {name: getattr(module, name).detach().clone() for name in parametrizations}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))
