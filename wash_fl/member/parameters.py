"""A model's exchanged parameters, read and written where an exchange selects, without copying the model."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.core.identity import weights_sha256
from wash_fl.core.layout import PARAMETER, Layout, layout_of
from wash_fl.core.selection import Part, Selection
from wash_fl.errors import LayoutError
from wash_fl.member.sharing import Memory, memory_of
from wash_fl.member.state_dict import refuse_lazy, state_arrays, state_rules

Values = NDArray[np.float32]


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
    """Flat views of the memory of tensors, made again when one has moved.

    A model has dozens of tensors of which an exchange touches a few values each, so the fixed cost per tensor
    is what counts.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
        Whose views are wanted.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = tensors
        self._moved_from: list[int] = []
        self._views: list[Values | None] = []

    def __call__(self) -> list[Values | None]:
        """Return a view of each tensor; None for one that is not contiguous memory of the CPU."""
        pointers = [each.data_ptr() for each in self._tensors]
        if pointers != self._moved_from:
            # The old views keep the old memory, so that no other tensor can be there.
            self._moved_from, self._views = pointers, [_flat_view(each) for each in self._tensors]
        return self._views


def gather(
    tensors: Sequence[torch.Tensor], selection: Selection, views: Sequence[Values | None] | None = None
) -> Values:
    """Return a copy of the selected values, shape (count,), wherever the tensors live.

    ``views`` are those of :class:`FlatViews`, if there are any.
    """
    values = np.empty(selection.count, dtype=np.float32)
    for part in selection.parts:
        tensor, into = tensors[part.tensor], values[part.begin : part.end]
        view = _flat_view(tensor) if views is None else views[part.tensor]
        if view is None:
            _gather_by_torch(tensor, part, into)
        elif part.length == 1:
            # All places exist; to clip them is the mode that does not check it again.
            view.take(part.runs, out=into, mode="clip")
        else:
            runs, rows, rest = _rows(part, view, into)
            rows[0].take(runs, axis=0, out=rows[1], mode="clip")
            if rest is not None:
                rest[1][:] = rest[0]
    return values


def scatter(
    tensors: Sequence[torch.Tensor],
    selection: Selection,
    values: Values,
    views: Sequence[Values | None] | None = None,
) -> None:
    """Write ``values``, shape (count,), where they are selected, in place."""
    for part in selection.parts:
        tensor, source = tensors[part.tensor], values[part.begin : part.end]
        view = _flat_view(tensor) if views is None else views[part.tensor]
        if view is None:
            _scatter_by_torch(tensor, part, source)
        elif part.length == 1:
            view[part.runs] = source
        else:
            runs, rows, rest = _rows(part, view, source)
            rows[0][runs] = rows[1]
            if rest is not None:
                rest[0][:] = rest[1]


def _flat_view(tensor: torch.Tensor) -> Values | None:
    """Return a flat view of the memory of a contiguous CPU tensor; others go through torch."""
    if tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_neg():
        view: Values = tensor.detach().numpy().reshape(-1)
        return view
    return None


def _rows(
    part: Part, view: Values, values: Values
) -> tuple[NDArray[np.int64], tuple[Values, Values], tuple[Values, Values] | None]:
    """Return a part's whole runs, tensor and values as rows of that length, and both beyond these rows."""
    length, whole = part.length, part.whole
    inside, among = view.size - view.size % length, whole * length
    rows = view[:inside].reshape(-1, length), values[:among].reshape(-1, length)
    if whole == part.runs.size:
        return part.runs, rows, None
    return part.runs[:whole], rows, (view[inside:], values[among:])


def _gather_by_torch(tensor: torch.Tensor, part: Part, into: Values) -> None:
    index = torch.from_numpy(part.elements()).to(tensor.device)
    into[:] = torch.take(tensor.detach(), index).cpu().numpy()


def _scatter_by_torch(tensor: torch.Tensor, part: Part, values: Values) -> None:
    index = torch.from_numpy(part.elements()).to(tensor.device)
    # A copy, for the values may be a read-only view of a packet, which torch would warn about.
    tensor.detach().put_(index, torch.from_numpy(values.copy()).to(tensor.device))


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
