"""What a benchmark prints: its figures, and on which machine they were measured."""

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from wash_fl.lab.machine import machine


def report(
    console: Console,
    name: str,
    figures: dict[str, Any],
    as_json: bool,
    tables: Iterable[Table] | None = None,
) -> None:
    """Print figures and the machine: one JSON object, or tables; by default one with a row for each."""
    where = machine()
    if as_json:
        print(json.dumps({"bench": name, **figures, "machine": where}))
        return
    for table in [_table(name, figures)] if tables is None else tables:
        console.print(table)
    packages = ", ".join(f"{package} {number}" for package, number in where["versions"].items())
    console.print(
        f"{where['cores']} cores, {where['cpu']}, {where['system']}, Python {where['python']}, {packages}",
        highlight=False,
    )


def _table(name: str, figures: dict[str, Any]) -> Table:
    table = Table("figure", "value", title=f"bench {name}", title_justify="left")
    for key, value in figures.items():
        if isinstance(value, dict):
            for kind, count in value.items():
                table.add_row(f"{key}: {kind}", _number(count))
        else:
            table.add_row(key, _number(value))
    return table


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_number(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_number, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
