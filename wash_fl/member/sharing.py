"""Which entries of a model's state dict are the same memory: modules with two names, tied weights."""

import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.errors import LayoutError

Memory = tuple[Any, ...]
"""What two tensors have in common if they are the same memory, read in the same way."""


def memory_of(entry: object) -> Memory:
    """Return what is equal for two tensors if and only if they are the same memory, read in the same way."""
    if not isinstance(entry, torch.Tensor) or entry.layout != torch.strided or entry.is_meta:
        return (id(entry),)
    if not entry.numel():
        return (id(entry),)  # no address is theirs
    view = (entry.dtype, tuple(entry.shape), entry.stride(), entry.is_conj(), entry.is_neg())
    return entry.device, entry.data_ptr(), *view


def first_names(model: nn.Module) -> dict[str, str]:
    """Return, for each name in a model's state dict, the first name that is the same memory.

    Examples
    --------
    >>> norm = nn.BatchNorm1d(2)
    >>> first_names(nn.Sequential(norm, norm))["1.running_mean"]
    '0.running_mean'
    """
    first: dict[Memory, str] = {}
    state = model.state_dict(keep_vars=True)
    # The dict keeps its entries alive, so that no two of them have one address after each other.
    return {name: first.setdefault(memory_of(entry), name) for name, entry in state.items()}


def refuse_overlaps(state: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that cannot be written to each on its own.

    Raises
    ------
    LayoutError
        If several elements of one are one place in memory, or two share some places and not all.
    """
    of_storage: defaultdict[int, dict[Memory, str]] = defaultdict(dict)
    for name, tensor in state.items():
        if tensor.numel():
            if _repeats_itself(tensor):
                raise LayoutError(
                    f"{name!r} of shape {list(tensor.shape)} is an expanded view, in which several elements "
                    "are one place in memory: make it a tensor of its own with .contiguous()."
                )
            of_storage[tensor.untyped_storage().data_ptr()].setdefault(memory_of(tensor), name)
    for views in of_storage.values():
        for one, other in itertools.combinations(views.values(), 2):
            if _overlap(state[one], state[other]):
                raise LayoutError(
                    f"{other!r} is a view of a part of {one!r}, or of all of it in another shape, and what "
                    "becomes of one would become of the other: register one of the two, or give the other "
                    "a memory of its own with .clone()."
                )


def _repeats_itself(tensor: torch.Tensor) -> bool:
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                # Such strides may still miss each other.
                return bool(np.unique(_places(tensor)).size < tensor.numel())
            reach += (size - 1) * stride
    return False


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    (begin, end), (start, stop) = _span(one), _span(other)
    if end <= start or stop <= begin:
        return False
    # Columns of one matrix lie among each other, and share nothing.
    return one.dtype != other.dtype or bool(np.intersect1d(_places(one), _places(other)).size)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the addresses of the first byte and of the one after the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _places(tensor: torch.Tensor) -> NDArray[np.int64]:
    """Return where in its storage each element is, flat."""
    places = np.array([tensor.storage_offset()], dtype=np.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        places = (places[:, np.newaxis] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    return places
