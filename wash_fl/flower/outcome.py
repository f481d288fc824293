"""What comes of a run: its rounds as they end, and the mean of its members' models."""

import logging
from collections.abc import Mapping

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Result

from wash_fl.consensus.averaging import ModelAverage
from wash_fl.consensus.treatment import Treatment, in_one_line, re_estimated
from wash_fl.flower.arrays import Spec
from wash_fl.flower.collection import pooled
from wash_fl.flower.records import Arrays
from wash_fl.flower.watching import Watcher, mean_metrics
from wash_fl.protocol.commands import RoundEnded

logger = logging.getLogger("flwr.wash_fl")


class Outcome:
    """Reports a run's rounds, and averages what its members hand in.

    Parameters
    ----------
    model : Spec
        What a member's whole model looks like.
    watcher : Watcher
        Told of progress.

    Attributes
    ----------
    result : Result
        Flower's own, with the mean metrics of each round.
    averaged : dict of str to ndarray
        The averaged model; empty before there is one.
    members : list of int
        The members that are in it.
    buffers : dict of str to list of str
        What was done with each of its buffers.
    """

    def __init__(self, model: Spec, watcher: Watcher) -> None:
        self.result = Result()
        self.averaged: Arrays = {}
        self.members: list[int] = []
        self.buffers: Treatment = {}
        self._rules = model.rules
        self._average = ModelAverage(model.rules, model.constants)
        self._watcher = watcher

    def round_ended(self, ended: RoundEnded) -> None:
        """Report a round."""
        self._watcher.on_round(ended)
        self.result.train_metrics_clientapp[ended.round] = mean_metrics(ended)

    def use_model(self, member: int, arrays: Arrays) -> None:
        """Add a member's whole model to the average."""
        self._average.add(member, arrays)
        self._watcher.on_member(member, arrays)

    def take_mean(self) -> None:
        """Average what was added."""
        self.averaged, self.members = self._average.mean(), sorted(self._average.members)
        self.buffers = self._average.treatment()
        self._watcher.on_average(self.averaged, False)

    def re_estimate(self, statistics: Mapping[int, ArrayRecord | None]) -> None:
        """Give the averaged model the BatchNorm statistics that the clients have estimated for it."""
        found = pooled(statistics, self.averaged, self._rules)
        if found is not None:
            self.averaged = found.applied_to(self.averaged)
            self.buffers = re_estimated(self.buffers, found.buffers())
        self._watcher.on_average(self.averaged, True)

    def say(self) -> None:
        """Log what was done with the model's buffers."""
        if line := in_one_line(self.buffers):
            logger.info("buffers %s", line)
