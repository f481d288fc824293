"""CSV files as raw inputs: readings of sensors, cut into windows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.table import FLOAT32, read_table

SUFFIXES: Final = (".csv",)


def read_windows(
    path: Path,
    shape: tuple[int, ...],
    *,
    stride: int | None = None,
    columns: Sequence[str] = (),
    dtype: np.dtype[Any] = FLOAT32,
) -> tuple[NDArray[Any], list[tuple[int, int]], int]:
    """Read a table of readings and cut it into raw inputs of a model.

    Parameters
    ----------
    path : Path
        One line for each moment, one column for each channel; see :func:`wash_fl.export.table.read_table`.
    shape : tuple of int
        The shape of one input: ``(channels, time)``, or ``(features,)`` for a model without time, which
        answers each line.
    stride : int, optional
        Lines from the start of a window to that of the next; by default a window's length.
    columns, dtype
        As :func:`wash_fl.export.table.read_table` takes them.

    Returns
    -------
    windows : ndarray of ``dtype``, shape (n, *shape)
        As they are in the file.
    rows : list of (int, int)
        The first and the last row of each window, from 1; names are not counted.
    left_over : int
        Rows at the end that are in no window.

    Raises
    ------
    ExportError
        If the model's inputs are no windows, or the file is not such a table or shorter than one window.
    """
    if len(shape) not in {1, 2}:
        raise ExportError(
            f"{path} is a table of readings, but an input of this model has the shape {shape}: a window of "
            "readings has (channels, time). Give pictures or arrays."
        )
    length = shape[1] if len(shape) == 2 else 1
    step = length if stride is None else stride
    if step < 1:
        raise ExportError(f"stride = {step} must be at least 1: give how many rows lie between two windows.")
    table = read_table(path, shape[0], columns=columns, dtype=dtype)
    if not len(table):
        raise ExportError(f"{path} has no readings: give one line of numbers for each moment or example.")
    if len(table) < length:
        raise ExportError(
            f"{path} has {len(table)} rows of readings, and a window has {length}: record for longer."
        )
    starts = range(0, len(table) - length + 1, step)
    windows = np.stack([table[start : start + length].T for start in starts])
    rows = [(start + 1, start + length) for start in starts]
    return windows.reshape(len(rows), *shape), rows, max(0, len(table) - rows[-1][1])
