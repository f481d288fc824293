"""Figures of a comparison: accuracy against bytes and options, distance, the loss between members."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Final

from wash_fl.lab.compare.comparison import Folder, Variant
from wash_fl.lab.compare.table import Line
from wash_fl.runs.figures import Figure

MARKS: Final = "osD^v<>pPX*hHd8"
MEGABYTE: Final = 1e6


def comparison_figures(folder: Folder, lines: Sequence[Line]) -> list[Figure]:
    """Return the figures of a comparison as far as it is done.

    Parameters
    ----------
    folder : Folder
        Where the rows are.
    lines : sequence of Line
        Its table.
    """
    plain = [line for line in lines if not line.variant.changes and not line.variant.dropout] or list(lines)
    return [
        Figure(
            "bytes",
            "Accuracy of the one model that is shipped, against bytes",
            "test accuracy",
            lambda axes: _against_bytes(axes, lines),
            across="megabytes that a member uploads while it trains",
            whole=False,
        ),
        Figure(
            "apart",
            "Distance of the members to their mean, relative to its norm",
            "relative distance",
            lambda axes: _over_rounds(axes, folder, plain),
        ),
        Figure(
            "between",
            "Loss on the straight line between two members",
            "test loss",
            lambda axes: _between(axes, folder, plain),
            across="from one member (0) to the other (1)",
            whole=False,
        ),
        *(_option(key, lines) for key in _varied(lines)),
    ]


def _against_bytes(axes: Any, lines: Sequence[Line]) -> None:
    for mark, line in zip(_marks(lines), lines, strict=True):
        found = line.accuracy["product"]
        axes.errorbar(
            line.up.mean / MEGABYTE,
            found.mean,
            yerr=found.deviation,
            marker=mark,
            linestyle="none",
            capsize=2,
            label=line.variant.name,
        )
    sent = [line.up.mean / MEGABYTE for line in lines if line.up.mean > 0]
    if sent:
        # Methods are far apart in bytes, and one sends none at all. From a power of ten on, where a tick is.
        least = 10.0 ** math.floor(math.log10(min(sent)))
        axes.set_xscale("symlog", linthresh=least)
        axes.set_xlim(left=-least / 4)
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
    _percent(axes)


def _over_rounds(axes: Any, folder: Folder, lines: Sequence[Line]) -> None:
    for line in lines:
        series = list(zip(*(row["distance"] for row in _rows(folder, line.variant)), strict=True))
        axes.plot(
            range(1, len(series) + 1), [statistics.fmean(each) for each in series], label=line.variant.name
        )
    axes.set_ylim(bottom=0)
    _percent(axes)


def _between(axes: Any, folder: Folder, lines: Sequence[Line]) -> None:
    for line in lines:
        found = [row["lines"]["members"] for row in _rows(folder, line.variant)]
        losses = [statistics.fmean(each) for each in zip(*(each["losses"] for each in found), strict=True)]
        axes.plot(found[0]["places"], losses, marker=".", label=line.variant.name)
    axes.set_ylim(bottom=0)


def _option(key: str, lines: Sequence[Line]) -> Figure:
    def value(line: Line) -> Any:
        return line.variant.dropout if key == "dropout" else line.variant.changes.get(key)

    having = [line for line in lines if value(line) is not None]
    numbers = all(isinstance(value(line), int | float) for line in having)
    places = {each: each if numbers else at for at, each in enumerate(dict.fromkeys(map(value, having)))}

    def plot(axes: Any) -> None:
        others: dict[str, list[Line]] = {}
        for line in having:
            others.setdefault(_but(line.variant, key).name, []).append(line)
        for name, group in others.items():
            points = sorted((places[value(line)], line.accuracy["product"]) for line in group)
            axes.errorbar(
                [at for at, _ in points],
                [found.mean for _, found in points],
                yerr=[found.deviation for _, found in points],
                marker=".",
                capsize=2,
                label=name,
            )
        if not numbers:
            axes.set_xticks(list(places.values()), [str(each) for each in places])
        _percent(axes)

    return Figure(f"by-{key}", f"Accuracy against {key}", "test accuracy", plot, across=key, whole=False)


def _varied(lines: Sequence[Line]) -> Iterator[str]:
    """Yield what differs between variants of the same method."""
    keys = dict.fromkeys(key for line in lines for key in line.variant.changes)
    yield from (key for key in keys if len({str(line.variant.changes.get(key)) for line in lines}) > 1)
    if len({line.variant.dropout for line in lines}) > 1:
        yield "dropout"


def _but(variant: Variant, key: str) -> Variant:
    """Return a variant without what is on the axis."""
    changes = {name: value for name, value in variant.changes.items() if name != key}
    return Variant(variant.method, changes, 0.0 if key == "dropout" else variant.dropout)


def _rows(folder: Folder, variant: Variant) -> list[dict[str, Any]]:
    found = (folder.figures(variant, seed) for seed in folder.comparison.seeds)
    return [each for each in found if each is not None]


def _marks(lines: Sequence[Line]) -> Iterator[str]:
    return (MARKS[number % len(MARKS)] for number in range(len(lines)))


def _percent(axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
