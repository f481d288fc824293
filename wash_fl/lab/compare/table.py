"""The result table of a comparison: mean and spread over the seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from wash_fl.lab.compare.budget import NEAR, near
from wash_fl.lab.compare.comparison import Folder, Variant
from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.rivals import HEAD

COLUMNS: Final = ("product", "member", "ensemble", "averaged", "recalibrated", "soup")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over the seeds."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Return those of some values."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)

    def percent(self) -> str:
        """Return it as percent, such as ``98.12 ± 0.10``."""
        return f"{100 * self.mean:.2f} ± {100 * self.deviation:.2f}"


@dataclass(frozen=True)
class Line:
    """A variant's figures over its seeds.

    Attributes
    ----------
    variant : Variant
        Whose.
    seeds : int
        How many are done.
    accuracy : dict of str to Spread
        By column: the product, member, ensemble, averaged, averaged with BatchNorm re-estimated, soup.
    up, down : Spread
        Bytes of values of a member while it trains.
    messages : Spread
        Bytes up of the messages that carried them.
    barrier : Spread
        Of the loss between two members.
    distance : Spread
        Of the members to their mean at the end, over its norm.
    seconds : Spread
        Of the training and all measurements.
    of_fedavg : Spread, optional
        The bytes of its packets, up and down, as a part of FedAvg's; None for rows that are older.
    knob : str
        What decided how much was sent, in words; empty for rows that are older.
    """

    variant: Variant
    seeds: int
    accuracy: dict[str, Spread]
    up: Spread
    down: Spread
    messages: Spread
    barrier: Spread
    distance: Spread
    seconds: Spread
    of_fedavg: Spread | None = None
    knob: str = ""


def table(folder: Folder) -> list[Line]:
    """Return a line for each variant of which a row is done."""
    lines = []
    for variant in folder.comparison.variants:
        rows = [
            found for seed in folder.comparison.seeds if (found := folder.figures(variant, seed)) is not None
        ]
        if rows:
            lines.append(_line(variant, rows))
    return lines


def _line(variant: Variant, rows: list[dict[str, Any]]) -> Line:
    def spread(*path: Any) -> Spread:
        values = []
        for row in rows:
            value: Any = row
            for key in path:
                value = value[key]
            values.append(float(value))
        return Spread.of(values)

    return Line(
        variant=variant,
        seeds=len(rows),
        accuracy={name: spread("accuracy", name) for name in COLUMNS},
        up=spread("bytes", "up_values"),
        down=spread("bytes", "down_values"),
        messages=spread("bytes", "up_messages"),
        barrier=spread("lines", "members", "barrier"),
        distance=spread("distance", -1),
        seconds=spread("seconds"),
        of_fedavg=spread("of_fedavg") if all("of_fedavg" in row for row in rows) else None,
        knob=str(rows[0].get("knob", "")),
    )


def part_of_fedavg(line: Line, budget: float) -> str:
    """Return a variant's bytes as a part of FedAvg's, in words; says so if they do not meet a budget."""
    if line.of_fedavg is None:
        return ""
    text = f"{line.of_fedavg.mean:.3g}"
    return text if not budget or near(line.of_fedavg.mean, budget) else f"{text}, missed"


def budget_lines(folder: Folder) -> list[str]:
    """Return the rules by which a comparison's budget is met, and why some methods cannot, in lines."""
    comparison = folder.comparison
    if not comparison.budget:
        return []
    rules: dict[str, list[str]] = {}
    for name in dict.fromkeys(each.method for each in comparison.variants):
        if (fit := METHODS[name].fit) is not None:
            rules.setdefault(fit.rule, []).append(name)
    return [
        f"budget {comparison.budget:g} of FedAvg's bytes (every round, all values, float32), packets up and "
        f"down; met within {NEAR:.0%}, or marked as missed; by these rules:",
        *(f"{', '.join(names)}: {rule}" for rule, names in rules.items()),
        *(f"{name} cannot meet it: {why}" for name, why in comparison.unable.items()),
    ]


def markdown(
    lines: Sequence[Line],
    rivals: Sequence[Sequence[str]],
    claims: Sequence[Sequence[str]],
    budget: float = 0.0,
    rules: Sequence[str] = (),
) -> str:
    """Return the table for a document, WASH beside its rivals, and the claims, as far as there are any."""
    head = ("method", "knob", *COLUMNS, "kB up", "kB down", "of FedAvg", "barrier", "seconds")
    rows = [
        [
            line.variant.name,
            line.knob,
            *(line.accuracy[name].percent() for name in COLUMNS),
            f"{line.up.mean / 1e3:.0f}",
            f"{line.down.mean / 1e3:.0f}",
            part_of_fedavg(line, budget),
            f"{line.barrier.mean:.3f}",
            f"{line.seconds.mean:.0f}",
        ]
        for line in lines
    ]
    parts = [_rows(head, rows)]
    if rules:
        parts.append("\n".join(f"- {each}" for each in rules))
    if rivals:
        parts.append(_rows(HEAD, rivals))
    if claims:
        parts.append(_rows(("claim", "answer", "figures"), claims))
    return "\n\n".join(parts)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruled = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in ruled)
