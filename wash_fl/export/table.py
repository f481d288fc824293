"""A CSV file as a table of numbers: no line is skipped, no cell guessed, every column in its place."""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.names import canonical
from wash_fl.errors import ExportError
from wash_fl.export.text import short

MISSING: Final = frozenset({"", "nan", "na", "n/a", "<na>", "#n/a", "null", "none", "nil", "-", "?"})
"""How programs write that there is no number, in small letters."""

SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What else stands between cells, in files that are called CSV."""

FLOAT32: Final = np.dtype(np.float32)


class CsvLine(NamedTuple):
    """One line that is not blank."""

    where: str
    """The file and the line's number, for a message."""
    cells: list[str]
    after_blank: str
    """The same of a blank line directly above; empty if there is none."""


def read_table(
    path: Path,
    channels: int,
    *,
    columns: Sequence[str] = (),
    dtype: np.dtype[Any] = FLOAT32,
) -> NDArray[Any]:
    """Read the numbers of a CSV file.

    A first line without any number is names. Names that include all of ``columns`` say which column is
    which, in any order, whatever else the table has; capitals and blanks around a name are no matter.

    Parameters
    ----------
    path : Path
        UTF-8, commas between numbers. Blank lines above the names and below the last line are no matter.
    channels : int
        How many columns there must be, unless names say which ones are meant.
    columns : sequence of str
        The names of the model's channels; empty if nobody has named them.
    dtype : numpy.dtype
        float32, or a type of whole numbers.

    Returns
    -------
    ndarray of ``dtype``, shape (lines, channels)

    Raises
    ------
    ExportError
        If a reading is missing, no number or not of the type; a line has another width, or is blank between
        others; names are not the model's; or the first line may be names that look like numbers.
    """
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        return np.empty((0, channels), dtype)
    positions = _columns_by_name(first, channels, columns)
    numbers = _numbers_of(dtype)
    if positions is None:
        _refuse_width(first, channels, columns)
        rows = [_row(line, range(channels), channels, numbers) for line in chain([first], lines)]
    else:
        rows = [_row(line, positions, len(first.cells), numbers) for line in lines]
    table = np.array(rows, dtype=dtype).reshape(-1, channels)
    if positions is None:
        _refuse_numbered_columns(first, table)
    return table


def _lines(path: Path) -> Iterator[CsvLine]:
    try:
        # utf-8-sig: spreadsheets put a mark before the first name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            blank = ""
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                # A quoted empty cell is no blank line: it is how a missing value of one column is written.
                if not cells or (len(cells) == 1 and cells[0].isspace()):
                    blank = where
                    continue
                yield CsvLine(where, cells, blank)
                blank = ""
    except OSError as error:
        raise ExportError(f"cannot read {path} ({error.strerror}): give the path of a CSV file.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExportError(f"{path} is no CSV file ({error}): save it as UTF-8 text with commas.") from error


def _columns_by_name(first: CsvLine, channels: int, columns: Sequence[str]) -> Sequence[int] | None:
    """Return where the channels are if the first line is names, None if it is a reading."""
    key = _key(columns)
    names = [key(cell) for cell in first.cells]
    keys = [key(name) for name in columns]
    if columns and set(keys) <= set(names):
        counts = Counter(names)
        twice = [name for name, each in zip(columns, keys, strict=True) if counts[each] > 1]
        if twice:
            raise ExportError(
                f"{first.where} has more than one {short(twice[0])}: give each of the model's columns once."
            )
        return [names.index(each) for each in keys]
    # A line of nothing but missing readings is not names, and may not vanish as if it were.
    if all(map(_is_missing, first.cells)):
        return None
    # Names may be numbers, of wavelengths say: then a word among them says that the others are names, too.
    common = set(keys) & set(names)
    words = any(not _looks_like_a_number(cell) and not _is_missing(cell) for cell in first.cells)
    if any(map(_looks_like_a_number, first.cells)) and not (common and words):
        return None
    if columns and _other_separator(first.cells) is None:
        missing = [name for name, each in zip(columns, keys, strict=True) if each not in names]
        unknown = [cell.strip() for cell, each in zip(first.cells, names, strict=True) if each not in keys]
        raise ExportError(
            f"{first.where} lacks the model's {_named(missing)}"
            + (f", and names {_named(unknown)}, which it does not know" if unknown else "")
            + ": name the columns as the model's card does, in any order."
        )
    _refuse_width(first, channels, columns)
    return range(channels)


def _key(columns: Sequence[str]) -> Callable[[str], str]:
    """Return what makes of a name what is compared: capitals count only where they tell columns apart."""
    if len({canonical(name).casefold() for name in columns}) == len(columns):
        return lambda name: canonical(name).casefold()
    return canonical


def _named(names: Sequence[str]) -> str:
    listing = ", ".join(map(short, names[:4]))
    return listing if len(names) <= 4 else f"{listing} and {len(names) - 4} more"


def _row(line: CsvLine, positions: Sequence[int], width: int, numbers: "_Numbers") -> list[Any]:
    if line.after_blank:
        raise ExportError(
            f"{line.after_blank} is blank, and readings come below: fill in what is missing, or delete the "
            "line if nothing is."
        )
    if len(line.cells) != width:
        expected = f"the model has {width} channels" if len(positions) == width else f"the first has {width}"
        raise ExportError(f"{line.where} has {_count(line.cells)}, and {expected}: {_way_to(line, width)}.")
    values = [numbers.read(line.cells[index]) for index in positions]
    if None in values:
        _refuse_cell(line, positions[values.index(None)], numbers)
    return values


def _refuse_width(line: CsvLine, channels: int, columns: Sequence[str]) -> None:
    if len(line.cells) == channels:
        return
    way = _way_to(line, channels)
    if columns:
        way += f"; or name them in the first line, the model's among them ({_named(columns)})"
    raise ExportError(f"{line.where} has {_count(line.cells)}, and the model has {channels} channels: {way}.")


def _count(cells: Sequence[str]) -> str:
    return f"{len(cells)} {'column' if len(cells) == 1 else 'columns'}"


def _way_to(line: CsvLine, width: int) -> str:
    """Return what to do about a line of another width."""
    cells, separator = line.cells, _other_separator(line.cells)
    if separator is not None:
        return f"it seems to have {separator} between its cells, and must have commas, and points in numbers"
    if len(cells) == width + 1 and cells[-1].strip() == "":
        return "leave out the comma at the line's end"
    if len(cells) == width + 1 and cells[0].strip() == "":
        return "leave out the first, an index without a name; pandas does so with to_csv(index=False)"
    return "give one column for each, with commas between, and no others (no time, no index)"


def _refuse_cell(line: CsvLine, index: int, numbers: "_Numbers") -> NoReturn:
    cell = line.cells[index].strip()
    if _is_missing(cell):
        what = f", column {index + 1}: a reading is missing ({cell!r})"
        if all(map(_is_missing, line.cells)):
            what = " has no reading in any column"
        raise ExportError(
            f"{line.where}{what}: fill it in, or delete the line if the answers below may move up."
        )
    separator = _other_separator([cell])
    if separator is not None:
        way = f"there seem to be {separator} between the cells: put commas there, and points in numbers"
    elif any(mark in cell for mark in ",_'"):
        way = "write numbers with a decimal point, and nothing between thousands"
    else:
        way = "mend the line or leave it out"
    raise ExportError(
        f"{line.where}, column {index + 1}: {short(cell)} is not a {numbers.what} can hold: {way}."
    )


def _refuse_numbered_columns(first: CsvLine, table: NDArray[Any]) -> None:
    """Refuse a first line that may number the columns, as pandas does for those without names."""
    width = table.shape[1]
    counts = any(
        [cell.strip() for cell in first.cells] == [str(start + index) for index in range(width)]
        for start in (0, 1)
    )
    steps = np.diff(table[0].astype(np.float64))
    # Such as the wavelengths of a spectrum; fewer values rise in equal steps by chance.
    if table.dtype.kind == "f" and width >= 6 and steps[0] > 0:
        counts = counts or np.allclose(steps, steps[0], rtol=1e-4, atol=0)
    if counts and width < 3:
        # One or two small numbers are often a reading: only where no other line has whole numbers are they
        # set apart from what is below.
        others = table[1:]
        counts = len(others) > 0 and not (others == np.rint(others)).all(axis=1).any()
    if counts:
        preview = ", ".join(cell.strip() for cell in first.cells[:3]) + (", ..." if width > 3 else "")
        raise ExportError(
            f"{first.where} ({preview}) may number the columns or be a reading: delete it if it numbers "
            "them, or put a line of names above it if it is a reading."
        )


def _other_separator(cells: Sequence[str]) -> str | None:
    for mark, name in SEPARATORS.items():
        if any(mark in cell for cell in cells):
            return name
    spaced = len(cells) == 1 and len(cells[0].split()) > 1
    return "spaces" if spaced and all(map(_looks_like_a_number, cells[0].split())) else None


def _is_missing(cell: str) -> bool:
    return cell.strip().casefold() in MISSING


class _Numbers(NamedTuple):
    """The numbers of a type."""

    parse: Callable[[str], float | int | None]
    least: float | int
    most: float | int
    what: str

    def read(self, cell: str) -> float | int | None:
        """Return the number in a cell; None if there is none, or the type cannot hold it."""
        value = self.parse(cell)
        return value if value is not None and self.least <= value <= self.most else None  # None for NaN


def _numbers_of(dtype: np.dtype[Any]) -> _Numbers:
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        return _Numbers(_float, float(limits.min), float(limits.max), f"number that {dtype}")
    bounds = np.iinfo(dtype)
    return _Numbers(_int, bounds.min, bounds.max, f"whole number that {dtype}")


def _float(cell: str) -> float | None:
    try:
        # Python alone reads 2020_01 as a number.
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _int(cell: str) -> int | None:
    try:
        return None if "_" in cell else int(cell)
    except ValueError:
        # Spreadsheets and pandas write 3 as 3.0 where a column has had gaps; beyond 2**53 that is not exact.
        value = _float(cell)
        return int(value) if value is not None and value.is_integer() and abs(value) <= 2**53 else None


def _looks_like_a_number(cell: str) -> bool:
    value = _float(cell)
    return value is not None and not math.isnan(value)
