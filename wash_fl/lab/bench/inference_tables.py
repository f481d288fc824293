"""The figures of :mod:`wash_fl.lab.bench.inference` as a person reads them."""

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

MEGABYTE = 1e6


def tables(figures: dict[str, Any]) -> Iterator[Table]:
    """Yield a table of latencies and one of starts."""
    models = figures["models"]
    turns = f"{figures['repeats']} turns after {figures['warm_up']} to warm up"
    yield _latencies(models, f"latency: {turns}, threads: {figures['threads']}")
    yield _starts(models)


def _latencies(models: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("batch", justify="right")
    table.add_column("model", overflow="fold")
    for heading in ("p50 ms", "p90 ms", "p99 ms", "examples/s"):
        table.add_column(heading, justify="right")
    if len(models) > 1:
        table.add_column("ratio to the first", justify="right")
    for size in models[0]["batches"]:
        for place, each in enumerate(models):
            row = each["batches"][size]
            cells = [f"{row[name]:.3g}" for name in ("p50_ms", "p90_ms", "p99_ms")]
            cells.append(f"{row['examples_per_second']:,.0f}")
            if len(models) > 1:
                spread = f"{row['ratio']:.3f} ({row['ratio_p25']:.3f} to {row['ratio_p75']:.3f})"
                cells.append(spread if place else "")
            table.add_row(size, escape(each["model"]), *cells, end_section=place == len(models) - 1)
    return table


def _starts(models: list[dict[str, Any]]) -> Table:
    table = Table(title="start of a process; memory is the peak of what is resident", title_justify="left")
    table.add_column("model", overflow="fold")
    sizes = list(models[0]["batches"])
    headings = ("file MB", "import ms", "load ms", "first ms", "MB before load")
    for heading in (*headings, *(f"MB at batch {size}" for size in sizes)):
        table.add_column(heading, justify="right")
    for each in models:
        start = each["start"]
        table.add_row(
            escape(each["model"]),
            f"{each['file_bytes'] / MEGABYTE:.3g}",
            *(f"{start[name]:.3g}" for name in ("import_ms", "load_ms", "first_ms")),
            f"{start['bytes_before_load'] / MEGABYTE:.1f}",
            *(f"{start['peak_bytes'][size] / MEGABYTE:.1f}" for size in sizes),
        )
    return table
