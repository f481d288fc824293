"""A model's exchanged parameters, read and written where an exchange selects, without copying the model."""

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.core.identity import weights_sha256
from wash_fl.core.layout import PARAMETER, Layout, layout_of
from wash_fl.core.selection import Selection
from wash_fl.errors import LayoutError
from wash_fl.member.sharing import Memory, memory_of
from wash_fl.member.state_dict import refuse_lazy, state_arrays, state_rules

Values = NDArray[np.float32]
Runs = NDArray[np.void]

_NO_ITEMS: Final[tuple[int, Runs]] = 0, np.empty(0, dtype="V4")


def exchanged_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return a model's trainable parameters in the order of their registration.

    Frozen parameters are left out: no gradient changes them. A tied parameter appears once, under its first
    name; so do several that are the same memory.

    Raises
    ------
    LayoutError
        If a trainable parameter is not float32, for a slice could not carry its values exactly, or it has no
        values yet.
    """
    named: dict[Memory, tuple[str, nn.Parameter]] = {}
    for name, each in model.named_parameters():
        refuse_lazy(name, each)
        if each.requires_grad:
            named.setdefault(memory_of(each), (name, each))
    for name, each in named.values():
        if each.dtype != torch.float32:
            remedy = "Convert the model with model.float(); train in lower precision under torch.autocast."
            if each.is_complex():
                remedy = "Keep its real and imaginary parts, torch.view_as_real(...), as the parameter."
            raise LayoutError(
                f"parameter {name!r} is {str(each.dtype).removeprefix('torch.')}; only float32 is exchanged. "
                f"{remedy}"
            )
    return list(named.values())


def model_layout(model: nn.Module, slots: Sequence[str] = ()) -> Layout:
    """Return the layout of a model; ``slots`` names the optimizer state that travels along (WASH+Opt).

    Raises
    ------
    LayoutError
        If nothing is trainable, a trainable parameter is not float32, or the model could not be handed in and
        averaged at the end: its state dict leaves out what is exchanged, or holds something else than
        tensors, or tensors of a dtype that NumPy does not have or with some of their memory in common.

    Examples
    --------
    >>> model_layout(nn.Linear(3, 2)).size
    8
    """
    named = exchanged_parameters(model)
    if not named:
        raise LayoutError("the model has no trainable parameter: unfreeze the parameters to be exchanged.")
    shapes = [(name, each.shape) for name, each in named]
    return layout_of(shapes, (PARAMETER, *slots), state_rules(model, [each for _, each in named]))


class FlatViews:
    """Flat views of the memory of tensors, each made when it is asked for, and again when a tensor has moved.

    A model has dozens of tensors of which an exchange touches a few values each, so the fixed cost per tensor
    is what counts.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
        Whose views are wanted.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = tensors
        # The old views keep the old memory, so that no other tensor can be there.
        self._moved_from = [0] * len(tensors)
        self._views: list[Values | None] = [None] * len(tensors)
        self._items: list[tuple[int, Runs]] = [_NO_ITEMS] * len(tensors)

    def flat(self, number: int) -> Values | None:
        """Return a view of a tensor, shape (size,); None if it is not contiguous memory of the CPU."""
        pointer = self.tensors[number].data_ptr()
        if pointer != self._moved_from[number]:
            self._moved_from[number], self._items[number] = pointer, _NO_ITEMS
            self._views[number] = _flat_view(self.tensors[number])
        return self._views[number]

    def runs(self, number: int, view: Values, length: int) -> Runs:
        """Return the whole runs of so many values in a tensor's flat view, each as one item.

        NumPy copies such items as they are, and several times as fast as rows of a matrix.
        """
        kept, items = self._items[number]
        if kept != length:
            items = view[: view.size - view.size % length].view(_item(length))
            self._items[number] = length, items
        return items


def gather(tensors: Sequence[torch.Tensor], selection: Selection, views: FlatViews | None = None) -> Values:
    """Return a copy of the selected values, shape (count,), wherever the tensors live.

    ``views`` are those of the tensors, if they are kept.
    """
    views = FlatViews(tensors) if views is None else views
    values = np.empty(selection.count, dtype=np.float32)
    for part in selection.parts:
        number, length, runs, whole, begin, end = part
        view = views.flat(number)
        if view is None:
            index = torch.from_numpy(part.elements()).to(tensors[number].device)
            values[begin:end] = torch.take(tensors[number].detach(), index).cpu().numpy()
        # All places exist; to clip them is the mode that does not check it again.
        elif length == 1:
            view.take(runs, out=values[begin:end], mode="clip")
        else:
            if whole < runs.size:
                shorter = view.size % length
                end -= shorter
                runs = runs[:whole]
                values[end : end + shorter] = view[-shorter:]
            into = values[begin:end].view(_item(length))
            views.runs(number, view, length).take(runs, out=into, mode="clip")
    return values


def scatter(
    tensors: Sequence[torch.Tensor], selection: Selection, values: Values, views: FlatViews | None = None
) -> None:
    """Write ``values``, shape (count,), where they are selected, in place."""
    views = FlatViews(tensors) if views is None else views
    values = np.ascontiguousarray(values, dtype=np.float32)
    for part in selection.parts:
        number, length, runs, whole, begin, end = part
        view = views.flat(number)
        if view is None:
            index = torch.from_numpy(part.elements()).to(tensors[number].device)
            # A copy, for the values may be a read-only view of a packet, which torch would warn about.
            source = torch.from_numpy(values[begin:end].copy()).to(tensors[number].device)
            tensors[number].detach().put_(index, source)
        elif length == 1:
            view[runs] = values[begin:end]
        else:
            if whole < runs.size:
                shorter = view.size % length
                end -= shorter
                runs = runs[:whole]
                view[-shorter:] = values[end : end + shorter]
            views.runs(number, view, length)[runs] = values[begin:end].view(_item(length))


def _flat_view(tensor: torch.Tensor) -> Values | None:
    """Return a flat view of the memory of a contiguous CPU tensor; others go through torch."""
    if tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_neg():
        view: Values = tensor.detach().numpy().reshape(-1)
        return view
    return None


@functools.cache
def _item(length: int) -> "np.dtype[np.void]":
    """Return the dtype of a run as one item."""
    return np.dtype((np.void, 4 * length))


def flatten(tensors: Sequence[torch.Tensor]) -> Values:
    """Return tensors as one flat float32 vector, a copy."""
    if not tensors:
        return np.empty(0, dtype=np.float32)
    return torch.cat([each.detach().reshape(-1).to("cpu", torch.float32) for each in tensors]).numpy()


def unflatten(vector: Values, tensors: Sequence[torch.Tensor]) -> None:
    """Write a flat float32 vector into tensors, in place; the inverse of :func:`flatten`."""
    expected = sum(each.numel() for each in tensors)
    if vector.shape != (expected,):
        raise LayoutError(f"a flat vector of shape {vector.shape} for {expected} values: the models differ.")
    source = torch.from_numpy(np.array(vector, dtype=np.float32))
    begin = 0
    with torch.no_grad():
        for each in tensors:
            piece = source[begin : begin + each.numel()].view(each.shape)
            each.detach().copy_(piece)
            begin += each.numel()


def owned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous copy on the CPU that shares its memory with no other tensor, as tied ones do."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def model_sha256(model: nn.Module) -> str:
    """Return the hash of a model's whole state dict: parameters and buffers, names and bits."""
    return weights_sha256(state_arrays(model))
