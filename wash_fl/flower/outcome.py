"""What comes of a run: its rounds as they end, and the mean of its members' models."""

import logging
from collections.abc import Mapping

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Result

from wash_fl.consensus.final import FinalModel
from wash_fl.consensus.pooling import pooled
from wash_fl.consensus.treatment import Treatment, in_one_line, re_estimated
from wash_fl.flower.arrays import Spec
from wash_fl.flower.collection import statistics_of
from wash_fl.flower.options import StrategyOptions
from wash_fl.flower.records import Arrays
from wash_fl.flower.watching import Watcher, mean_metrics
from wash_fl.protocol.commands import RoundEnded
from wash_fl.storage.model_store import ModelStore

logger = logging.getLogger("flwr.wash_fl")


class Outcome:
    """Reports a run's rounds, and averages what its members hand in.

    Parameters
    ----------
    model : Spec
        What a member's whole model looks like.
    watcher : Watcher
        Told of progress.
    models : ModelStore
        Where models wait until all are there.
    options : StrategyOptions
        Its ``outlier_factor``, ``final_average`` and ``calibration_examples``.

    Attributes
    ----------
    result : Result
        Flower's own, with the mean metrics of each round.
    averaged : dict of str to ndarray
        The averaged model; empty before there is one.
    members : list of int
        The members that are in it.
    left_out : dict of int to str
        Those that handed in a model that is not, and why.
    buffers : dict of str to list of str
        What was done with each of its buffers.
    """

    def __init__(self, model: Spec, watcher: Watcher, models: ModelStore, options: StrategyOptions) -> None:
        self.result = Result()
        self.averaged: Arrays = {}
        self.members: list[int] = []
        self.buffers: Treatment = {}
        self._rules = model.rules
        self.left_out: dict[int, str] = {}
        self._constants = model.constants
        self._models = models
        self._options = options
        self._watcher = watcher

    def round_ended(self, ended: RoundEnded) -> None:
        """Report a round."""
        self._watcher.on_round(ended)
        self.result.train_metrics_clientapp[ended.round] = mean_metrics(ended)

    def use_model(self, member: int, arrays: Arrays) -> None:
        """Keep a member's whole model until it is known whether it is averaged."""
        self._models.put(member, arrays)

    def take_mean(self) -> None:
        """Average the models that were handed in, but those that lie far from the others'."""
        final = FinalModel(
            self._models,
            self._rules,
            self._constants,
            factor=self._options.outlier_factor,
            how=self._options.final_average,
            tell=self._watcher.on_member,
        )
        self.averaged, self.members, self.buffers = final.arrays, final.members, final.treatment
        self.left_out = {member: f"its model: {reason}" for member, reason in final.left_out.items()}
        for member, reason in self.left_out.items():
            logger.warning("member %d is not in the average: %s", member, reason)
        self._watcher.on_average(self.averaged, False)

    def re_estimate(self, statistics: Mapping[int, ArrayRecord | None]) -> None:
        """Give the averaged model the BatchNorm statistics that the clients have estimated for it."""
        estimates = statistics_of(statistics, self.averaged, self._rules)
        for member in self.left_out.keys() & estimates.keys():
            del estimates[member]
        if estimates:
            found, left_out = pooled(
                estimates,
                factor=self._options.outlier_factor,
                most_examples=self._options.calibration_examples,
            )
            for member, reason in left_out.items():
                logger.warning("member %d: its BatchNorm statistics are not used: %s", member, reason)
            self.averaged = found.applied_to(self.averaged)
            self.buffers = re_estimated(self.buffers, found.buffers())
        else:
            logger.warning("no client re-estimated BatchNorm: its statistics are the members' average")
        self._watcher.on_average(self.averaged, True)

    def say(self) -> None:
        """Log what was done with the model's buffers."""
        if line := in_one_line(self.buffers):
            logger.info("buffers %s", line)
