"""A data set as one process sees it: labels, shapes, values, and a hash of every input.

A TensorDataset's labels and values are looked at whole. Anything else is read item by item, in an order that
all processes share, for a few seconds: two processes can then compare what both have read.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from wash_fl.core import philox
from wash_fl.errors import DataError
from wash_fl.tasks.division import labels_of, pair
from wash_fl.tasks.task import Examples
from wash_fl.tasks.user_code import user_code

SECONDS: Final = 3.0
"""For which a data set is read at most; a TensorDataset is hashed for as long."""

ORDER: Final = "look"
"""The stream of :mod:`wash_fl.core.philox` that orders what is looked at."""

WHOLE: Final = (torch.int64, torch.int32, torch.uint8)
"""Types of whole numbers that a model may be given."""

TWICE: Final = 8
"""Items that are read twice, to see whether they are drawn anew at each reading."""


@dataclass
class Look:
    """What was seen of a data set.

    Attributes
    ----------
    what : str
        Whose data it is, for messages.
    total : int
        Its length.
    rows : list of int
        The examples whose labels were seen, in their order.
    labels : ndarray of int64
        Their labels.
    whole : bool
        Whether the labels and the values of all examples were seen.
    hashes : list of bytes
        Of the inputs of as many of the ``rows`` as there was time for: type, shape and bits.
    dtype : str
        Of the first input.
    other : str
        What input is of another shape or type than the first; empty if none is.
    extremes : dict of int to torch.Tensor
        Of whole numbers, the examples that hold the least and the largest that were seen, and their inputs.
    not_finite : int or None
        An example whose input holds NaN or infinity.
    unseeded : bool
        Whether an input is another when it is read again, although torch's generator was set to the same
        seed.
    """

    what: str
    total: int
    whole: bool = False
    rows: list[int] = field(default_factory=list)
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    hashes: list[bytes] = field(default_factory=list)
    dtype: str = ""
    other: str = ""
    extremes: dict[int, torch.Tensor] = field(default_factory=dict)
    not_finite: int | None = None
    unseeded: bool = False

    @property
    def size(self) -> str:
        """How much of it was seen, for people."""
        return f"{self.total:,} examples" if self.whole else f"{len(self.rows):,} of {self.total:,} examples"


def look(dataset: Examples, what: str, *, seconds: float = SECONDS, seeded: bool) -> Look:
    """Look at a data set.

    Parameters
    ----------
    dataset : Dataset
        Of (input, class index) pairs.
    what : str
        Whose data it is, for messages.
    seconds : float
        For how long it is read.
    seeded : bool
        Whether torch's generator is set before each item, as in training; random transforms then repeat.

    Raises
    ------
    DataError
        If its items raise something, are no pairs, or their targets are no class indices.
    """
    length = len(dataset)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[], enabled=seeded), user_code(what):
        if isinstance(dataset, TensorDataset):
            return _look_at_tensors(dataset, Look(what, length), seconds)
        return _look_at_items(dataset, Look(what, length), seconds, seeded)


def _look_at_tensors(dataset: TensorDataset, result: Look, seconds: float) -> Look:
    inputs, _ = pair(dataset.tensors, result.what)
    inputs = inputs.detach().cpu()
    order = philox.order(0, ORDER, result.total)
    result.rows, result.labels, result.whole = order.tolist(), labels_of(dataset, result.what)[order], True
    result.dtype = _name(inputs.dtype)
    if inputs.is_floating_point():
        finite = torch.isfinite(inputs).reshape(len(inputs), -1).all(dim=1)
        result.not_finite = None if bool(finite.all()) else int(finite.int().argmin())
    elif inputs.dtype in WHOLE:
        flat = inputs.reshape(len(inputs), -1)
        rows = {int(flat.amin(dim=1).argmin()), int(flat.amax(dim=1).argmax())}
        result.extremes = {row: inputs[row] for row in rows}
    result.hashes = [_hash(inputs[row]) for row in _in_time(result.rows, seconds)]
    return result


def _look_at_items(dataset: Examples, result: Look, seconds: float, seeded: bool) -> Look:
    labels: list[Any] = []
    first: tuple[str, tuple[int, ...]] | None = None
    for row in _in_time(philox.order(0, ORDER, result.total).tolist(), seconds):
        value, label = _item(dataset, row, result.what, seeded)
        if seeded and len(result.rows) < TWICE:
            result.unseeded |= _hash(_item(dataset, row, result.what, seeded)[0]) != _hash(value)
        kind = _name(value.dtype), tuple(value.shape)
        first = first or kind
        if kind != first and not result.other:
            result.other = f"input {row} is {kind[0]} of shape {kind[1]}, others are {first[0]} of {first[1]}"
        if value.is_floating_point() and result.not_finite is None and not bool(torch.isfinite(value).all()):
            result.not_finite = row
        result.rows.append(row)
        result.hashes.append(_hash(value))
        labels.append((None, label))
        if value.dtype in WHOLE:
            result.extremes = _extremes([*result.extremes.items(), (row, value)])
    result.dtype = first[0] if first else ""
    result.labels = labels_of(labels, result.what)  # type: ignore[arg-type]
    result.whole = len(result.rows) == result.total
    return result


def _extremes(examples: list[tuple[int, torch.Tensor]]) -> dict[int, torch.Tensor]:
    """Return those examples that hold the least and the largest number."""
    least = min(examples, key=lambda each: int(each[1].min()))
    largest = max(examples, key=lambda each: int(each[1].max()))
    return dict([least, largest])


def _in_time(rows: list[int], seconds: float) -> Iterator[int]:
    """Yield rows until the time is over, one at least."""
    deadline = time.monotonic() + seconds
    for row in rows:
        yield row
        if time.monotonic() > deadline:
            return


def _item(dataset: Examples, row: int, what: str, seeded: bool) -> tuple[torch.Tensor, Any]:
    if seeded:
        torch.default_generator.manual_seed(row)
    value, label = pair(dataset[row], what)
    try:
        # As default_collate takes numbers and arrays.
        value = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"an input of {what} is of type {type(value).__name__}: give tensors, which torchvision's "
            "ToTensor makes of pictures."
        ) from None
    return value, label


def _hash(value: torch.Tensor) -> bytes:
    flat = value.detach().cpu().contiguous()
    digest = blake2b(f"{flat.dtype} {tuple(flat.shape)}".encode(), digest_size=8)
    digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
