"""What a run tells those who watch it."""

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import MetricRecord

from wash_fl.flower.records import Arrays
from wash_fl.protocol.commands import RoundEnded
from wash_fl.stream.reports import ExchangeReport


@dataclass
class Watcher:
    """Functions that are told of a run's progress; each may be left out.

    Attributes
    ----------
    on_exchange : callable
        Gets a report after each exchange over streams, on a thread of its own.
    on_round : callable
        Gets what a :class:`~wash_fl.protocol.commands.RoundEnded` says, after each round.
    on_member : callable
        Gets each member's index and state dict as it is collected: one model at a time.
    on_average : callable
        Gets the averaged state dict before and after BatchNorm is re-estimated on the clients.
    """

    on_round: Callable[[RoundEnded], None] = lambda report: None
    on_exchange: Callable[[ExchangeReport], None] = lambda report: None
    on_member: Callable[[int, Arrays], None] = lambda member, arrays: None
    on_average: Callable[[Arrays, bool], None] = lambda arrays, recalibrated: None


def mean_metrics(report: RoundEnded) -> MetricRecord:
    """Return a round's mean metrics, for Flower's own history."""
    names = {name for each in report.metrics.values() for name in each}
    summary = {
        name: sum(each.get(name, 0.0) for each in report.metrics.values())
        / sum(name in each for each in report.metrics.values())
        for name in sorted(names)
    }
    summary["members"] = float(len(report.settlement.members))
    if report.settlement.gauge is not None:
        summary["distance"] = report.settlement.gauge.distance
    return MetricRecord(dict(summary))
