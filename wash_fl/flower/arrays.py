"""Arrays from a stranger: read only if they are what is expected.

A Flower ``Array`` carries NumPy's own file format. ``numpy.load`` reserves whatever size a header claims,
opens archives, and raises half a dozen kinds of error. Here nothing larger than what came is ever reserved,
and one kind of error says what is wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray

from wash_fl.consensus.averaging import constants_of, is_sound
from wash_fl.consensus.batchnorm import BatchNormStatistics
from wash_fl.core.rules import StateRules, other_names
from wash_fl.errors import ExchangeError, RunError
from wash_fl.flower.records import EXAMPLES, Arrays


@dataclass(frozen=True)
class Spec:
    """What a member's whole model looks like.

    Attributes
    ----------
    kinds : dict of str to (tuple of int, dtype)
        Shape and dtype of each array, by name.
    rules : StateRules
        What becomes of each.
    constants : dict of str to str
        As :func:`~wash_fl.consensus.averaging.constants_of` returns them of the initial weights.
    """

    kinds: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    rules: StateRules
    constants: Mapping[str, str]


LARGEST: Final = 2.0**60
"""No activation's mean is beyond this, nor its deviation; their squares still fit a float32."""

_LONGEST_HEADER: Final = 4096
_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def spec_of(arrays: Arrays, rules: StateRules) -> Spec:
    """Return what the initial weights say of every model of the run."""
    kinds = {name: (each.shape, each.dtype) for name, each in arrays.items()}
    return Spec(kinds, rules, constants_of(arrays, rules))


def initial_spec(arrays: Arrays, rules: StateRules) -> Spec:
    """Return what the initial weights say of every model of the run.

    Raises
    ------
    RunError
        If they are not those of the model whose rules these are, or not finite.
    """
    wanted = rules.first.keys()
    if arrays.keys() != wanted:
        raise RunError(
            f"initial_arrays are {len(arrays)} arrays, and the layout's model has {len(wanted)} (the "
            f"first that is missing or too many: {min(arrays.keys() ^ wanted)!r}): give the state dict "
            "of the model that the layout is of."
        )
    if name := rules.conflict(arrays):
        raise RunError(
            f"initial_arrays have other values for {name!r} than for {rules.first[name]!r}, which "
            "are one tensor in the layout's model: give the state dict of such a model."
        )
    spec = spec_of(arrays, rules)
    for name in rules.rules:
        if not is_sound(arrays[name], spec.constants.get(name)):
            raise RunError(
                f"initial_arrays have values for {name!r} that are infinite or not numbers, and it is "
                "trained: give other initial weights."
            )
    return spec


def read_arrays(record: ArrayRecord | None, expected: Spec) -> Arrays:
    """Return the arrays of a record, which must be exactly those expected, and finite.

    Those that are not finite in the initial weights may be what they are there. An entry with several names
    is read from the first one: whether they are one memory is a matter of the device.

    Raises
    ------
    ExchangeError
        For any departure; nothing else is raised, whatever the record holds.
    """
    given = {} if record is None else dict(record.items())
    if given.keys() != expected.kinds.keys():
        raise ExchangeError(
            f"it holds {len(given)} arrays, not the {len(expected.kinds)} expected; "
            f"the first that is missing or too many: {min(given.keys() ^ expected.kinds.keys())[:100]!r}."
        )
    values = {name: _read(name, given[name], *kind) for name, kind in expected.kinds.items()}
    for name in expected.rules.rules:
        if not is_sound(values[name], expected.constants.get(name)):
            raise ExchangeError(f"its {name[:100]!r} holds values that are infinite or not numbers.")
    return expected.rules.spread(values)


def read_statistics(record: ArrayRecord | None, averaged: Arrays, rules: StateRules) -> BatchNormStatistics:
    """Return the BatchNorm statistics of a record, of some or all BatchNorm layers of the averaged model.

    Parameters
    ----------
    record : ArrayRecord or None
        What a client sent.
    averaged : dict of str to ndarray
        The averaged model.
    rules : StateRules
        Of the model: they know the other names of a layer.

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
        # NaN is within no bounds.
        low, high = (-LARGEST, LARGEST) if name.endswith("_mean") else (0.0, LARGEST**2)
        if examples < 1 or not ((each >= low) & (each <= high)).all():
            raise ExchangeError(f"its {name!r}, over {examples} examples, is not that of any activations.")
    return BatchNormStatistics.from_buffers(buffers, examples, other_names(rules.first, buffers))


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
    return np.frombuffer(data, dtype, offset=len(data) - size).reshape(shape).copy()
