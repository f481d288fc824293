"""A comparison on disk that was never trained."""

from pathlib import Path
from typing import Any

from wash_fl.lab.compare.comparison import ROWS, Comparison, Folder, Variant
from wash_fl.lab.compare.rows import read_rows, write_rows

SEEDS = (0, 1, 2)


def comparison(path: Path, named: dict[str, list[dict[str, float]]]) -> Folder:
    """Write rows that were never trained; a name is a method, and a schedule if it is another."""
    rows = []
    for name, figures in named.items():
        method, _, schedule = name.partition(" ")
        rows.append((Variant(method, {"schedule": schedule} if schedule else {}), figures))
    folder = Folder.begin(
        path, Comparison({"p": 0.1, "schedule": "decreasing"}, tuple(variant for variant, _ in rows), SEEDS)
    )
    for variant, seeds in rows:
        for seed, figures in zip(SEEDS, seeds, strict=True):
            made: dict[str, Any] = {
                "accuracy": {
                    "product": figures.get("product", 0.9),
                    "ensemble": figures.get("ensemble", 0.9),
                },
                "bytes": {"up_values": figures.get("bytes", 100.0)},
                "lines": {"members": {"barrier": figures.get("barrier", 0.0)}},
            }
            folder.put([(variant, seed, made)])
    return folder


def forget(folder: Folder, method: str, seed: int) -> Folder:
    """Take a row out of a comparison's file, and open it again."""
    rows = read_rows(folder.path / ROWS)
    del rows[method, seed]
    write_rows(folder.path / ROWS, rows)
    return Folder.open(folder.path)


def products(*values: float, **others: float) -> list[dict[str, float]]:
    return [{"product": value, **others} for value in values]
