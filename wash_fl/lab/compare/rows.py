"""The rows of a comparison in one file, a line of JSON for each, so that a changed row is a changed line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from wash_fl.errors import DataError
from wash_fl.files import write_text

PLAN: Final = "comparison.json"
"""The file beside them that says which rows a comparison has."""

Key = tuple[str, int]
"""A row, by its variant's name and its seed."""

Figures = dict[str, Any]


def read_rows(path: Path) -> dict[Key, Figures]:
    """Return the figures in a file by row; none if there is no file.

    Raises
    ------
    DataError
        If a line cannot be read, or a row stands there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path} is no text ({error}): remove it, and run the command again.") from error
    rows: dict[Key, Figures] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            key, figures = (str(row["row"]), int(row["seed"])), dict(row["figures"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number} cannot be read ({error}): remove it, and run the command again."
            ) from error
        if key in rows:
            raise DataError(
                f"{path}, line {number}: {_named(key)} stands in this file twice: remove one of them."
            )
        rows[key] = figures
    return rows


def write_rows(path: Path, rows: Mapping[Key, Figures]) -> None:
    """Write figures as a whole file, atomically; rows are sorted by variant and seed."""
    lines = (
        json.dumps({"row": name, "seed": seed, "figures": figures}) + "\n"
        for (name, seed), figures in sorted(rows.items(), key=lambda item: item[0])
    )
    write_text(path, "".join(lines))


def together(rows: Iterable[tuple[Path, Mapping[Key, Figures]]]) -> dict[Key, Figures]:
    """Return the rows of several comparisons as one.

    Raises
    ------
    DataError
        If a row is in two of them with other weights.
    """
    joined: dict[Key, Figures] = {}
    origin: dict[Key, Path] = {}
    for path, own in rows:
        for key, figures in own.items():
            if key in joined and joined[key].get("sha256") != figures.get("sha256"):
                raise DataError(
                    f"{_named(key)} is in {origin[key]} and in {path}, and they are not of the same weights: "
                    "give one of them."
                )
            joined.setdefault(key, figures)
            origin.setdefault(key, path)
    return joined


def _named(key: Key) -> str:
    return f"the row {key[0]!r} of seed {key[1]}"
