"""The exchanged parameters of a model as one flat float vector."""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.rules import StateRules
from wash_fl.errors import LayoutError

LARGEST_TENSOR = 2**31 - 1
"""Elements of one tensor; the draw's fixed-point arithmetic needs sizes under 2**31."""

PARAMETER = "parameter"
"""The first slot of every layout: the parameter's own value."""


@dataclass(frozen=True)
class TensorSpec:
    """One exchanged tensor: its name, shape and dtype (``"float32"``)."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Layout:
    """Names, shapes, dtypes and order of what members exchange.

    A coordinate is an index into the concatenation of all tensors, each in C order. At a coordinate a
    member holds one float per slot: the parameter's value first, then (WASH+Opt) the optimizer's state
    at the same place.

    Parameters
    ----------
    tensors : sequence of TensorSpec
        In depth order, from the input to the output.
    slots : sequence of str
        What is held at each coordinate; ``"parameter"`` comes first.
    state : StateRules, optional
        What becomes of the model's whole state dict when the members are averaged. It is not part of what is
        exchanged: two layouts are equal without it.

    Raises
    ------
    LayoutError
        If there is no tensor, a name repeats, a tensor is empty or has 2**31 elements or more.

    Examples
    --------
    >>> layout = Layout((TensorSpec("weight", (2, 3)), TensorSpec("bias", (2,))))
    >>> layout.size, layout.offsets.tolist()
    (8, [0, 6])
    """

    tensors: tuple[TensorSpec, ...]
    slots: tuple[str, ...] = (PARAMETER,)
    state: StateRules | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.tensors:
            raise LayoutError("a layout needs at least one tensor: the model has no trainable parameter.")
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            raise LayoutError(f"tensor names must differ, got {names}.")
        for tensor in self.tensors:
            if min(tensor.shape, default=1) < 1 or tensor.size > LARGEST_TENSOR:
                empty = min(tensor.shape, default=1) < 1
                remedy = "Leave it out of the model" if empty else "Freeze or split it"
                raise LayoutError(
                    f"tensor {tensor.name!r} of shape {tensor.shape} has {tensor.size} elements; "
                    f"1 to {LARGEST_TENSOR} can be exchanged. {remedy}."
                )
        if not self.slots or self.slots[0] != PARAMETER or len(set(self.slots)) != len(self.slots):
            raise LayoutError(f"slots must differ and start with {PARAMETER!r}, got {self.slots}.")

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Elements per tensor."""
        return np.array([tensor.size for tensor in self.tensors], dtype=np.int64)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Coordinate of each tensor's first element."""
        offsets: NDArray[np.int64] = np.cumsum(self.sizes) - self.sizes
        return offsets

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return int(self.sizes.sum())

    @cached_property
    def fingerprint(self) -> bytes:
        """Return 32 bytes that differ whenever names, shapes, dtypes, order or slots do.

        SHA-256 of ``wash-fl layout 1``, then for each tensor its name, dtype, and shape, then the slots;
        strings as length (u32) and UTF-8, counts as u32 and lengths of dimensions as u64, little-endian.
        """
        encoded = [b"wash-fl layout 1", struct.pack("<I", len(self.tensors))]
        for tensor in self.tensors:
            encoded += [_string(tensor.name), _string(tensor.dtype)]
            encoded.append(struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape))
        encoded.append(struct.pack("<I", len(self.slots)))
        encoded += [_string(slot) for slot in self.slots]
        return hashlib.sha256(b"".join(encoded)).digest()

    def boundaries(self, coordinates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where each tensor's part of sorted coordinates begins, and the end, shape (tensors + 1,)."""
        return np.searchsorted(coordinates, np.append(self.offsets, self.size))

    @property
    def rules(self) -> StateRules:
        """What becomes of the model's whole state dict when the members are averaged.

        Raises
        ------
        LayoutError
            If the layout was not made of a model.
        """
        if self.state is None:
            raise LayoutError(
                "the layout does not say what else the model holds: make it with "
                "wash_fl.member.parameters.model_layout(model)."
            )
        return self.state

    def difference(self, other: "Layout") -> str:
        """Say in one phrase where ``other`` departs from this layout; empty when they are equal."""
        if self.slots != other.slots:
            return f"slots {list(other.slots)} instead of {list(self.slots)}"
        if len(self.tensors) != len(other.tensors):
            return f"{len(other.tensors)} tensors instead of {len(self.tensors)}"
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            if mine != theirs:
                return f"{_describe(theirs)} instead of {_describe(mine)}"
        return ""


def layout_of(
    items: Iterable[tuple[str, Sequence[int]]],
    slots: Sequence[str] = (PARAMETER,),
    state: StateRules | None = None,
) -> Layout:
    """Build a float32 layout from (name, shape) pairs in depth order."""
    return Layout(tuple(TensorSpec(name, tuple(shape)) for name, shape in items), tuple(slots), state)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<I", len(encoded)) + encoded


def _describe(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype}{list(tensor.shape)}"
