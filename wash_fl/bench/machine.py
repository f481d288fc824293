"""On which machine something was measured."""

import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PACKAGES = ("wash-fl", "flwr", "torch", "numpy", "onnxruntime", "grpcio", "protobuf")


def machine() -> dict[str, Any]:
    """Return the cores, the processor, the system, and the versions that matter."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "cpu": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


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


def _processor() -> str:
    """Return the processor's name; Linux keeps it where :mod:`platform` does not look."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
