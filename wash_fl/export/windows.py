"""CSV files as raw inputs: readings of sensors, cut into windows."""

import csv
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.text import short

SUFFIXES: Final = (".csv",)

_LARGEST: Final = float(np.finfo(np.float32).max)


def read_windows(
    path: Path, shape: tuple[int, ...], *, stride: int | None = None
) -> tuple[NDArray[np.float32], list[tuple[int, int]], int]:
    """Read a table of readings and cut it into raw inputs of a model.

    Parameters
    ----------
    path : Path
        UTF-8, commas between numbers, one line for each moment, one column for each channel. The first line
        may be names.
    shape : tuple of int
        The shape of one input: ``(channels, time)``, or ``(features,)`` for a model without time, which
        answers each line.
    stride : int, optional
        Lines from the start of a window to that of the next; by default a window's length.

    Returns
    -------
    windows : ndarray of float32, shape (n, *shape)
        As they are in the file.
    rows : list of (int, int)
        The first and the last row of each window, from 1; names and empty lines are not counted.
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
    table = _read_table(path, shape[0])
    if len(table) < length:
        raise ExportError(
            f"{path} has {len(table)} rows of readings, and a window has {length}: record for longer."
        )
    starts = range(0, len(table) - length + 1, step)
    windows = np.stack([table[start : start + length].T for start in starts])
    rows = [(start + 1, start + length) for start in starts]
    return windows.reshape(len(rows), *shape), rows, max(0, len(table) - rows[-1][1])


def _read_table(path: Path, columns: int) -> NDArray[np.float32]:
    rows: list[list[float]] = []
    try:
        # utf-8-sig: spreadsheets put a mark before the first name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            written = (cells for cells in reader if any(cell.strip() for cell in cells))
            for index, cells in enumerate(written):
                where = f"{path}, line {reader.line_num}"
                _refuse_width(where, cells, columns)
                if index > 0 or any(_is_number(cell) for cell in cells):
                    rows.append(_row(where, cells))
    except OSError as error:
        raise ExportError(f"cannot read {path} ({error.strerror}): give the path of a CSV file.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExportError(f"{path} is no CSV file ({error}): save it as UTF-8 text with commas.") from error
    return np.array(rows, dtype=np.float32).reshape(-1, columns)


def _row(where: str, cells: list[str]) -> list[float]:
    for column, cell in enumerate(cells, start=1):
        if not _is_number(cell):
            raise ExportError(
                f"{where}, column {column}: {short(cell.strip())} is not a number that float32 can hold: "
                "mend the line or leave it out."
            )
    return [float(cell) for cell in cells]


def _refuse_width(where: str, cells: list[str], columns: int) -> None:
    if len(cells) != columns:
        given = f"{len(cells)} {'column' if len(cells) == 1 else 'columns'}"
        raise ExportError(
            f"{where} has {given}, and the model has {columns} channels: give one column for "
            "each, with commas between, and no others (no time)."
        )


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) <= _LARGEST  # false for NaN
    except ValueError:
        return False
