"""What is written into a run's folder while it lasts: its rounds, exchanges, members and averages."""

import math
import time
from typing import Any, Final

from wash_fl.config import RunConfig
from wash_fl.consensus.finish import Evaluator
from wash_fl.core.plane import plane_of
from wash_fl.flower.records import Arrays
from wash_fl.flower.traffic import Traffic
from wash_fl.flower.watching import Watcher
from wash_fl.protocol.commands import RoundEnded
from wash_fl.runs.folder import RunFolder
from wash_fl.stream.reports import ExchangeReport

SHOW_SECONDS: Final = 2.0
"""How often a run's exchanges over streams are shown while a round lasts."""


class Events:
    """Writes what a strategy reports into the folder of its run.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    evaluator : Evaluator
        Evaluates each member as it is collected, and the averaged model.

    Attributes
    ----------
    traffic : Traffic
        What is counted: to be set to the strategy's.
    """

    def __init__(self, folder: RunFolder, evaluator: Evaluator) -> None:
        self.traffic = Traffic()
        self._folder = folder
        self._evaluator = evaluator
        self._config: RunConfig = evaluator.config
        self._last_shown = 0.0

    def watcher(self) -> Watcher:
        """Return what a strategy is given to report to."""
        return Watcher(self._on_round, self._on_exchange, self._on_member, self._on_average)

    def _on_round(self, event: RoundEnded) -> None:
        self._folder.log("round", **round_fields(event, self.traffic))
        if plane_of(self._config.exchange).once_per_round:
            took_place = ExchangeReport(event.settlement, event.seconds, self.traffic.row())
            self._folder.log_exchange(**_exchange_fields(took_place))

    def _on_exchange(self, report: ExchangeReport) -> None:
        self._folder.log_exchange(**_exchange_fields(report))
        if time.monotonic() - self._last_shown >= SHOW_SECONDS:
            self._last_shown = time.monotonic()
            sums = self.traffic.total()
            self._folder.log("exchange", exchange=report.settlement.exchange, bytes=sums)

    def _on_member(self, member: int, weights: Arrays) -> None:
        if self._config.fleet.save_members:
            self._folder.save_member(member, weights)
        self._folder.log("member", member=member, accuracy=self._evaluator.add_member(member, weights))

    def _on_average(self, weights: Arrays, recalibrated: bool) -> None:
        if not recalibrated:
            self._folder.log("averaged", accuracy=self._evaluator.add_average(weights))


def _exchange_fields(report: ExchangeReport) -> dict[str, Any]:
    settlement = report.settlement
    return {
        "exchange": settlement.exchange,
        "members": list(settlement.members),
        "distance": None if settlement.gauge is None else settlement.gauge.distance,
        "seconds": report.seconds,
        "bytes": report.bytes,
    }


def round_fields(event: RoundEnded, traffic: Traffic) -> dict[str, Any]:
    """Return a round as it is written into the run's metrics."""
    gauge = event.settlement.gauge
    return {
        "round": event.round,
        "participants": sorted(event.metrics),
        "absent": list(event.absent),
        "absent_because": {str(member): reason for member, reason in event.absent_because.items()},
        "set_aside": {str(member): reason for member, reason in event.settlement.aside.items()},
        # JSON has no NaN; a metric that is not a number is left out rather than made up.
        "members": {
            str(member): {name: value for name, value in metrics.items() if math.isfinite(value)}
            for member, metrics in sorted(event.metrics.items())
        },
        "distance": None if gauge is None else gauge.distance,
        "relative_distance": None if gauge is None else gauge.relative,
        "distance_by_tensor": {} if gauge is None else gauge.by_tensor(),
        "bytes": traffic.total(),
        "seconds": event.seconds,
    }
