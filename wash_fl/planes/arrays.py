"""Arrays from a stranger: read only if they are what is expected.

A Flower ``Array`` carries NumPy's own file format. ``numpy.load`` reserves whatever size a header claims,
opens archives, and raises half a dozen kinds of error. Here nothing larger than what came is ever reserved,
and one kind of error says what is wrong.
"""

import math
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray

from wash_fl.consensus.batchnorm import BatchNormStatistics
from wash_fl.errors import ExchangeError
from wash_fl.planes.records import EXAMPLES, Arrays

Spec = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape and dtype of each array, by name."""

LARGEST: Final = 2.0**60
"""No activation's mean is beyond this, nor its deviation; their squares still fit a float32."""

_LONGEST_HEADER: Final = 4096
_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def spec_of(arrays: Arrays) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return the shape and dtype of each array."""
    return {name: (each.shape, each.dtype) for name, each in arrays.items()}


def read_arrays(record: ArrayRecord | None, expected: Spec) -> Arrays:
    """Return the arrays of a record, which must be exactly those expected, and finite.

    Raises
    ------
    ExchangeError
        For any departure; nothing else is raised, whatever the record holds.
    """
    given = {} if record is None else dict(record.items())
    if given.keys() != expected.keys():
        raise ExchangeError(
            f"it holds {len(given)} arrays, not the {len(expected)} expected; "
            f"the first that is missing or too many: {min(given.keys() ^ expected.keys())[:100]!r}."
        )
    return {name: _read(name, given[name], *expected[name]) for name in expected}


def read_statistics(record: ArrayRecord | None, averaged: Arrays) -> BatchNormStatistics:
    """Return the BatchNorm statistics of a record, of some or all BatchNorm layers of the averaged model.

    Raises
    ------
    ExchangeError
        If they are of other layers, or not possible; nothing else is raised.
    """
    given = {} if record is None else dict(record.items())
    count = given.pop(EXAMPLES, None)
    layers = {name.rpartition(".")[0] for name in given}
    wanted = {f"{layer}.{kind}" for layer in layers for kind in ("running_mean", "running_var")}
    if not given or given.keys() != wanted or not wanted <= averaged.keys() or count is None:
        raise ExchangeError(
            f"it holds {len(given)} arrays of statistics, not the running_mean and the running_var of "
            f"BatchNorm layers of the model and the number of {EXAMPLES}."
        )
    examples = int(_read(EXAMPLES, count, (1,), np.dtype(np.int64))[0])
    float32 = np.dtype(np.float32)
    buffers = {name: _read(name, each, averaged[name].shape, float32) for name, each in given.items()}
    for name, each in buffers.items():
        low, high = (-LARGEST, LARGEST) if name.endswith("_mean") else (0.0, LARGEST**2)
        if examples < 1 or not ((each >= low) & (each <= high)).all():
            raise ExchangeError(f"its {name}, over {examples} examples, is not that of any activations.")
    return BatchNormStatistics.from_buffers(buffers, examples)


def _read(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = dtype.itemsize * math.prod(shape)
    data = bytes(array.data)
    if array.stype != "numpy.ndarray" or not 0 < len(data) - size <= _LONGEST_HEADER:
        raise ExchangeError(
            f"its {name[:100]!r} is {len(data)} bytes of {array.stype[:100]!r}, expected a numpy.ndarray "
            f"with {size} bytes of values ({dtype}, shape {list(shape)})."
        )
    stream = BytesIO(data[: len(data) - size])
    try:
        header = _HEADERS[npy.read_magic(stream)](stream)
    except Exception as error:
        # NumPy parses the header as Python source, and lets through whatever that raises.
        raise ExchangeError(f"its {name[:100]!r} is not in NumPy's format.") from error
    if header != (shape, False, dtype) or stream.tell() != len(data) - size:
        raise ExchangeError(
            f"its {name[:100]!r} is of another dtype or shape than expected, {dtype} and {list(shape)}."
        )
    # A copy, for the bytes are not writable and belong to the message.
    values = np.frombuffer(data, dtype, offset=len(data) - size).reshape(shape).copy()
    if dtype.kind == "f" and not np.isfinite(values).all():
        raise ExchangeError(f"its {name[:100]!r} holds values that are infinite or not numbers.")
    return values
