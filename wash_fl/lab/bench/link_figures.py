"""What a run over a link costs, from what was seen of it. Pure: numbers in, numbers out."""

import statistics
from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table

from wash_fl.lab.bench.link_runs import FEDAVG, Moment, Timeline

READY: Final = ("recalibrated", "averaged")
"""The events after which the one model is on the server that is shipped; under FedAvg it is each round's."""

MEGA: Final = 1e6


def row_of(timeline: Timeline, *, members: int, target: float, app: int) -> dict[str, Any]:
    """Return the figures of a run; bytes are those of one device, the mean over all.

    Parameters
    ----------
    timeline : Timeline
        The run.
    members : int
        Devices.
    target : float
        An accuracy, 0 to 1.
    app : int
        Bytes of the app that Flower sends to each device; left out of the bytes until the target.

    Returns
    -------
    dict
        ``seconds_per_round``, ``up_per_round`` and ``down_per_round``, medians over the rounds from the
        second on; ``first_seconds``, the first round with the app, joining and the initial weights;
        ``last_seconds`` and ``last_bytes``, what it takes after the last round until one model is there;
        ``seconds``, ``up`` and ``down``, all of it; ``accuracies`` by round, and ``accuracy`` of the model
        that comes out; ``to_accuracy``, None if it is not reached, or the ``round``, and ``seconds`` and
        ``megabytes`` until one model of that accuracy is there; ``failure``.
    """
    moments = timeline.moments
    begin = moments[0]
    ends = {each.round: each for each in moments if each.event == "round"}
    # The next round begins when the server has looked at the model.
    starts = {each.round: each for each in moments if each.event in ("round", "evaluated")}
    pairs = [(starts[number - 1], end) for number, end in ends.items() if number - 1 in starts]
    accuracies = {each.round: each.accuracy for each in starts.values() if each.accuracy is not None}
    last = ends[max(ends)] if ends else begin
    ready = next((each for kind in READY for each in moments if each.event == kind), last)
    final = ready.accuracy if ready is not last else next(reversed(accuracies.values()), None)

    def megabytes(until: Moment, since: Moment) -> float:
        return (until.up - since.up + until.down - since.down) / members / MEGA

    reaching = next((number for number, value in sorted(accuracies.items()) if value >= target), None)
    to_accuracy = None
    # A recipe whose models were not handed in has no one model, however good its members are.
    is_there = ready is not last or any(each.event == "evaluated" for each in moments)
    if reaching is not None and is_there:
        to_accuracy = {
            "round": reaching,
            "seconds": ends[reaching].seconds - begin.seconds + ready.seconds - last.seconds,
            "megabytes": megabytes(ends[reaching], begin) + megabytes(ready, last) - app / MEGA,
        }
    end = moments[-1]
    return {
        "rounds": len(ends),
        "seconds_per_round": _median([each.seconds - start.seconds for start, each in pairs]),
        "up_per_round": _median([(each.up - start.up) / members for start, each in pairs]),
        "down_per_round": _median([(each.down - start.down) / members for start, each in pairs]),
        "first_seconds": ends[1].seconds - begin.seconds if 1 in ends else None,
        "last_seconds": ready.seconds - last.seconds,
        "last_bytes": MEGA * megabytes(ready, last),
        "seconds": end.seconds - begin.seconds,
        "up": (end.up - begin.up) / members,
        "down": (end.down - begin.down) / members,
        "accuracies": [accuracies[number] for number in sorted(accuracies)],
        "accuracy": final,
        "to_accuracy": to_accuracy,
        "failure": timeline.failure,
    }


def tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures for people: a row for each link and method."""
    target = f"to {100 * figures['accuracy']:g} %"
    table = Table(
        *(
            "kbit/s",
            "method",
            "s a round",
            "kB a round, up",
            "down",
            f"rounds {target}",
            "s",
            "MB",
            "at the end",
        ),
        title=f"bench link: {figures['model']}, {figures['members']} members, {figures['delay_ms']:g} ms",
    )
    for row in figures["rows"]:
        reach = row["to_accuracy"] or {}
        table.add_row(
            f"{row['kbit']:g}",
            row["method"],
            _number(row["seconds_per_round"], 1),
            _number(_kilo(row["up_per_round"]), 0),
            _number(_kilo(row["down_per_round"]), 0),
            str(reach.get("round", "-")),
            _number(reach.get("seconds"), 0),
            _number(reach.get("megabytes"), 2),
            row["failure"] or _number(None if row["accuracy"] is None else 100 * row["accuracy"], 1) + " %",
        )
    ratios = Table("kbit/s", "beside FedAvg", "a round sooner", "bytes a round", title="beside FedAvg")
    for each in figures["beside_fedavg"]:
        ratios.add_row(
            f"{each['kbit']:g}", each["method"], f"{each['sooner']:.1f} times", f"1/{1 / each['bytes']:.0f}"
        )
    return [table, ratios] if figures["beside_fedavg"] else [table]


def beside_fedavg(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return by how much a round of each recipe is sooner over, and which part of the bytes it moves."""
    plain = {row["kbit"]: row for row in rows if row["method"] == FEDAVG and row["seconds_per_round"]}
    results = []
    for row in rows:
        other = plain.get(row["kbit"])
        if other is not None and row["method"] != FEDAVG and row["seconds_per_round"]:
            part = (row["up_per_round"] + row["down_per_round"]) / (
                other["up_per_round"] + other["down_per_round"]
            )
            sooner = other["seconds_per_round"] / row["seconds_per_round"]
            results.append({"kbit": row["kbit"], "method": row["method"], "sooner": sooner, "bytes": part})
    return results


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _kilo(value: float | None) -> float | None:
    return None if value is None else value / 1e3


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
