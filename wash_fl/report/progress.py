"""A run as a person watches it: a line per round, and a table at the end."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from wash_fl.consensus.treatment import in_one_line
from wash_fl.protocol.reasons import by_reason
from wash_fl.report.amounts import on_links, size
from wash_fl.runs.folder import AVERAGED, FIGURES, METRICS, MODEL, RunFolder

LONGEST_REASON = 200
"""Characters of a reason in a round's line; the run's metrics have all of it."""


class Progress:
    """Shows a run's events on a console.

    Parameters
    ----------
    console : Console
        Where to.
    rounds : int
        Rounds in the whole run.
    opening : str
        What happens before the server is up.
    """

    def __init__(self, console: Console, rounds: int, opening: str = "starting Flower") -> None:
        self._opening = opening
        self._console = console
        self._rounds = rounds
        self._status: Status | None = None
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._say(f"{self._opening}; this takes a quarter of a minute")
        spinner = "dots" if self._console.encoding.startswith("utf") else "line"
        self._status = self._console.status(self._opening, spinner=spinner)
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Show one event."""
        match event["event"]:
            case "start":
                self._say("the server is up; waiting for the clients")
                self._now("the clients start")
            case "resume":
                self._say("the server is up again; the run goes on where it was")
                self._now("the clients connect")
            case "exchanges":
                self._say(
                    f"{event['does']}; each member will send about {size(event['up'])} and receive "
                    f"{size(event['down'])} (FedAvg: {size(event['fedavg'])} each way)"
                )
            case "round":
                self._say(_round_line(event, self._rounds))
                self._now(f"round {event['round'] + 1} of {self._rounds}")
                if event["round"] == self._rounds:
                    self._now("collecting the members")
            case "exchange":
                amount = size(event["bytes"]["up_values"])
                self._now(f"exchange {event['exchange']}, {amount} of values sent up so far")
            case "member":
                self._say(f"collected member {event['member']}: {event['accuracy']:.2%} on the test data")
            case "averaged":
                self._say(f"averaged: {event['accuracy']:.2%}")
                self._now("re-estimating BatchNorm, exporting")
            case "recalibrated":
                self._say(f"averaged, BatchNorm re-estimated: {event['accuracy']:.2%}")
            case "finished":
                self._now("stopping Flower")
            case _:
                pass

    def summarize(self, folder: RunFolder) -> None:
        """Print the result and where it is."""
        summary = folder.summary()
        accuracy, traffic = summary["accuracy"], summary["bytes"]
        table = Table(
            title=f"{escape(folder.path.name)} ({time.monotonic() - self._started:.0f} s)",
            title_justify="left",
        )
        table.add_column("model")
        table.add_column("test accuracy", justify="right")
        each = accuracy["members"].values()
        table.add_row("members, each alone", f"{min(each):.2%} to {max(each):.2%}")
        table.add_row(f"ensemble of {len(each)}", f"{accuracy['ensemble']:.2%}")
        table.add_row("[bold]averaged: one model[/]", f"[bold]{accuracy['averaged']:.2%}[/]")
        table.add_row("the same in onnxruntime", f"{summary['onnx']['agreement']:.2%} equal answers")
        self._console.print(table)
        self._say(
            f"each member sent {size(traffic['up_values'] / len(each))} of values in "
            f"{size(traffic['up_messages'] / len(each))} of messages while training, and its model "
            f"({size(traffic['up_models'] / len(each))}) once at the end"
        )
        if line := on_links(folder.last("finished").get("bytes", {}), len(each)):
            self._say(line)
        if line := in_one_line(summary.get("buffers", {})):
            self._say(f"buffers {line}")
        for member, reason in summary.get("left_out", {}).items():
            self._say(f"member {member} is not in the average: {reason}")
        for name in (MODEL, AVERAGED, METRICS, FIGURES):
            self._say(str(folder.path / name))

    def _say(self, line: str) -> None:
        # Not wrapped, so that paths stay whole and a log file has a line per round.
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _now(self, what: str) -> None:
        if self._status is not None:
            self._status.update(what)


def _round_line(event: dict[str, Any], rounds: int) -> str:
    metrics = list(event["members"].values())
    losses = [each["loss"] for each in metrics if "loss" in each]
    accuracies = [each["accuracy"] for each in metrics if "accuracy" in each]
    parts = [f"round {event['round']:>{len(str(rounds))}}/{rounds}", f"{len(event['participants'])} members"]
    if losses:
        parts.append(f"loss {sum(losses) / len(losses):.3f}")
    if event["distance"] is not None:
        parts.append(f"distance {event['distance']:.2f} ({event['relative_distance']:.0%} of their norm)")
    parts.append(f"sent up {size(event['bytes']['up_messages'])}")
    if accuracies:
        parts.append(f"members {min(accuracies):.1%} to {max(accuracies):.1%}")
    if absent := _absent(event):
        parts.append(f"absent: {absent}")
    if event.get("set_aside"):
        parts.append(f"set aside: {', '.join(event['set_aside'])}")
    return "  ".join(parts)


def _absent(event: dict[str, Any]) -> str:
    """Return who is absent in a round, and why; a reason that several have is said once."""
    reasons = dict.fromkeys(event["absent"], "")
    reasons |= {int(member): reason for member, reason in event.get("absent_because", {}).items()}
    return ", ".join(
        ", ".join(map(str, who)) + (f" ({_short(reason)})" if reason else "")
        for reason, who in by_reason(reasons).items()
    )


def _short(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 3]}..."
