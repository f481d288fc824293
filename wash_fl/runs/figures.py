"""Figures of a run: accuracy, distance between members, bytes; as PNG files or within a page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wash_fl.files import replacing
from wash_fl.runs.record import Round, rounds_of

LINES = 32
"""So many members have a line each; of more, the band in which they lie is drawn."""
FEW = 4
"""So many names fit beside the lines that they are of."""
DOTS = 60
"""So many points of a line are marked; without a mark a single one would not be seen."""


@dataclass(frozen=True)
class Figure:
    """A figure that is not drawn yet.

    Attributes
    ----------
    name : str
        Its file's, without the ending.
    title : str
        What it shows.
    quantity : str
        The vertical axis.
    plot : callable
        Draws into matplotlib's axes.
    empty : bool
        Whether there is nothing to see.
    across : str
        The horizontal axis.
    whole : bool
        Whether that has whole numbers only.
    """

    name: str
    title: str
    quantity: str
    plot: Callable[[Any], None]
    empty: bool = False
    across: str = "round"
    whole: bool = True

    def draw(self, inches: tuple[float, float], *, titled: bool) -> Any:
        """Return matplotlib's figure, on a canvas of no kind yet."""
        # The object interface, and not pyplot: it needs no display and keeps no state between figures.
        from matplotlib.figure import Figure as Drawing
        from matplotlib.ticker import MaxNLocator

        drawing = Drawing(figsize=inches, layout="constrained")
        axes = drawing.add_subplot()
        self.plot(axes)
        if titled:
            axes.set_title(self.title)
        axes.set_xlabel(self.across)
        axes.set_ylabel(self.quantity)
        if self.whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        labels = len(axes.get_legend_handles_labels()[0])
        if labels > FEW:
            # Below, where it hides nothing.
            drawing.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
        elif labels:
            axes.legend()
        return drawing


def run_figures(rounds: Sequence[Round], accuracy: Mapping[str, float] | None) -> list[Figure]:
    """Return the figures of a run.

    Parameters
    ----------
    rounds : sequence of Round
        Its rounds, in order.
    accuracy : mapping or None
        Of the averaged model and of the ensemble, by these names; None while a run has neither.
    """
    points = _accuracies(rounds)
    apart = [(each.number, each.relative_distance) for each in rounds if each.relative_distance is not None]
    return [
        Figure(
            "accuracy",
            "Accuracy",
            "test accuracy",
            lambda axes: _accuracy(axes, points, accuracy or {}),
            empty=not points,
        ),
        Figure(
            "distance",
            "Distance between two members, relative to their norm",
            "relative distance (estimated)",
            lambda axes: _distance(axes, apart),
            empty=not apart,
        ),
        Figure(
            "bytes",
            "Bytes sent up by all members",
            "megabytes",
            lambda axes: _bytes(axes, rounds),
            empty=not rounds,
        ),
    ]


def draw_figures(folder: Path, events: Sequence[dict[str, Any]], summary: dict[str, Any]) -> list[Path]:
    """Draw a run's figures as PNG files and return their paths.

    Parameters
    ----------
    folder : Path
        Where to put them; made if needed.
    events : sequence of dict
        The run's metrics, line by line.
    summary : dict
        The run's summary.
    """
    figures = run_figures(rounds_of(events), summary["accuracy"])
    return write_png(figures, folder)


def write_png(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write figures as PNG files of their names into a folder, made if needed; return their paths."""
    return [_png(each, folder / f"{each.name}.png") for each in figures]


def _png(figure: Figure, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawing = figure.draw((7, 4), titled=True)
    FigureCanvasAgg(drawing)
    with replacing(path) as scratch:
        drawing.savefig(scratch, dpi=120, format="png")
    return path


def _accuracies(rounds: Sequence[Round]) -> dict[int, list[tuple[int, float]]]:
    points: dict[int, list[tuple[int, float]]] = {}
    for each in rounds:
        for member, metrics in each.metrics.items():
            if "accuracy" in metrics:
                points.setdefault(member, []).append((each.number, metrics["accuracy"]))
    return points


def _accuracy(axes: Any, points: Mapping[int, list[tuple[int, float]]], final: Mapping[str, float]) -> None:
    from matplotlib.ticker import PercentFormatter

    if len(points) > LINES:
        axes.fill_between(*zip(*_bands(points), strict=True), color="tab:gray", alpha=0.4, label="members")
    else:
        for number, (_, series) in enumerate(sorted(points.items())):
            _line(axes, series, color="tab:gray", alpha=0.6, label=None if number else "members")
    if "ensemble" in final:
        axes.axhline(final["ensemble"], color="tab:green", linestyle="--", label="their ensemble")
    if "averaged" in final:
        axes.axhline(final["averaged"], color="tab:red", label="the averaged model")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _bands(points: Mapping[int, list[tuple[int, float]]]) -> Iterator[tuple[int, float, float]]:
    by_round: dict[int, list[float]] = {}
    for series in points.values():
        for number, value in series:
            by_round.setdefault(number, []).append(value)
    for number, values in sorted(by_round.items()):
        yield number, min(values), max(values)


def _distance(axes: Any, apart: Sequence[tuple[int, float]]) -> None:
    from matplotlib.ticker import PercentFormatter

    _line(axes, apart, color="tab:blue")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _bytes(axes: Any, rounds: Sequence[Round]) -> None:
    for kind, color, style in (("messages", "tab:orange", "-"), ("values", "tab:blue", "--")):
        series = [(each.number, each.traffic[f"up_{kind}"] / 1e6) for each in rounds]
        _line(axes, series, color=color, linestyle=style, label=kind)
    axes.set_ylim(bottom=0)


def _line(axes: Any, series: Sequence[tuple[int, float]], **look: Any) -> None:
    marker = "." if len(series) <= DOTS else None
    axes.plot([at for at, _ in series], [value for _, value in series], marker=marker, **look)
