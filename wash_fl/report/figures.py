"""Figures of a run: accuracy, distance between members, bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wash_fl.files import replacing


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
    rounds = [event for event in events if event["event"] == "round"]
    return [
        _figure(
            folder / "accuracy.png",
            "Accuracy",
            "test accuracy",
            lambda axes: _accuracy(axes, rounds, summary),
        ),
        _figure(
            folder / "distance.png",
            "Distance between two members, relative to their norm",
            "relative distance (estimated)",
            lambda axes: axes.plot(
                [each["round"] for each in rounds if each["relative_distance"] is not None],
                [each["relative_distance"] for each in rounds if each["relative_distance"] is not None],
                color="tab:blue",
            ),
        ),
        _figure(
            folder / "bytes.png",
            "Bytes sent up by all members",
            "megabytes",
            lambda axes: _bytes(axes, rounds),
        ),
    ]


def _figure(path: Path, title: str, quantity: str, plot: Any) -> Path:
    # The object interface, and not pyplot: it needs no display and keeps no state between figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    plot(axes)
    axes.set_title(title)
    axes.set_xlabel("round")
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    with replacing(path) as scratch:
        figure.savefig(scratch, dpi=120, format="png")
    return path


def _accuracy(axes: Any, rounds: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    points: dict[str, list[tuple[int, float]]] = {}
    for each in rounds:
        for member, metrics in each["members"].items():
            if "accuracy" in metrics:
                points.setdefault(member, []).append((each["round"], metrics["accuracy"]))
    for member, series in sorted(points.items()):
        label = "members" if member == min(points) else None
        axes.plot(*zip(*series, strict=True), color="tab:gray", alpha=0.6, marker=".", label=label)
    axes.axhline(summary["accuracy"]["ensemble"], color="tab:green", linestyle="--", label="their ensemble")
    axes.axhline(summary["accuracy"]["averaged"], color="tab:red", label="the averaged model")


def _bytes(axes: Any, rounds: Sequence[dict[str, Any]]) -> None:
    numbers = [each["round"] for each in rounds]
    for kind, color in (("messages", "tab:orange"), ("values", "tab:blue")):
        axes.plot(numbers, [each["bytes"][f"up_{kind}"] / 1e6 for each in rounds], color=color, label=kind)
