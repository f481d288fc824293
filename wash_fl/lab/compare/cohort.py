"""The members of an ensemble in one process, and what every way of training them has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.config import RunConfig
from wash_fl.consensus.averaging import ModelAverage, constants_of
from wash_fl.consensus.batchnorm import BatchNormStatistics, estimate
from wash_fl.consensus.final import FinalModel
from wash_fl.consensus.finish import Arrays, Evaluator, Outcome
from wash_fl.consensus.pooling import pooled
from wash_fl.consensus.screen import InMemory
from wash_fl.core import philox
from wash_fl.core.recipes import resolve
from wash_fl.core.schedule import Schedule
from wash_fl.member.member import Member
from wash_fl.member.state_dict import batchnorm_layers, state_arrays
from wash_fl.member.threads import one_thread
from wash_fl.member.training import LocalTraining, make_optimizer, placed
from wash_fl.tasks.division import is_divided, member_examples
from wash_fl.tasks.models import initial_model
from wash_fl.tasks.task import Task, load_task

OnRound = Callable[[int, dict[int, float]], None]


class Cohort(ABC):
    """Members that all start from the same weights and take the same number of steps, each on its examples.

    Parameters
    ----------
    config : RunConfig
        The run's options; those of the fleet do not matter here.
    task : Task, optional
        By default the one the options name.
    dropout : float
        Probability that a member is away in a round: it does not train, and takes part in nothing.

    Attributes
    ----------
    members : list of Member
        By index.
    aside : dict of int to str
        The members that the run goes on without because of their values, and why.
    unused : dict of int to str
        Those whose BatchNorm statistics are not used, and why.
    here : list of int
        The members that are there in this round.
    rules : StateRules
        What becomes of their state dicts in an average.
    """

    def __init__(self, config: RunConfig, task: Task | None = None, *, dropout: float = 0.0) -> None:
        self.task = load_task(config.task.task) if task is None else task
        self.config = config = resolve(config, divided=is_divided(self.task, config))
        self.aside: dict[int, str] = {}
        self.unused: dict[int, str] = {}
        self._dropout = dropout
        self._training = [
            LocalTraining(config, self.task, member_examples(self.task, config, index), index)
            for index in range(config.training.members)
        ]
        self.members = [self._member(index) for index in range(config.training.members)]
        self.here = self.active()
        self.rules = self.members[0].layout.rules.marked(self.task.averaged_buffers)
        self._constants = constants_of(self.weights(0), self.rules)

    def run(self, on_round: OnRound | None = None) -> Outcome:
        """Train all rounds, average, re-estimate BatchNorm, and evaluate.

        Parameters
        ----------
        on_round : callable, optional
            Gets the round and the members' losses.
        """
        # The generator is put back: no trace is left here.
        with one_thread(), torch.random.fork_rng(devices=[]):
            for number in range(1, self.config.training.rounds + 1):
                losses = self.round(number)
                if on_round is not None:
                    on_round(number, losses)
            return self.finish()

    def round(self, number: int) -> dict[int, float]:
        """Train every member that is there for a round, and let them communicate; return mean losses."""
        length = self.config.training.local_steps
        position, end = (number - 1) * length, number * length
        self.here = [index for index in self.active() if not self._away(index, number)]
        losses = dict.fromkeys(self.here, 0.0)
        self.begin_round()
        while position < end:
            stop = min(end, self.next_stop(position))
            for index, loss in self._train(position, stop - position).items():
                losses[index] += loss * (stop - position) / length
            position = stop
            self.after_step(position)
            self.here = [index for index in self.here if index not in self.aside]
        self.end_round()
        return losses

    @property
    def knob(self) -> str:
        """What decides how much is sent, in words; empty if nothing is."""
        return ""

    def begin_round(self) -> None:  # noqa: B027 (most have nothing to do there)
        """Do what is done before a round's first step."""

    @abstractmethod
    def next_stop(self, position: int) -> int:
        """Return after how many steps of the run the members next do something but train."""

    @abstractmethod
    def after_step(self, position: int) -> None:
        """Let the members communicate after so many steps of the run, if it is time."""

    def end_round(self) -> None:  # noqa: B027 (most have nothing to do there)
        """Do what is done after a round's last step."""

    def settle(self) -> None:  # noqa: B027 (most have nothing to do there)
        """Bring what is under way to its end, before the members are averaged."""

    def finish(self) -> Outcome:
        """Average the members as they are, re-estimate BatchNorm as the options say, and evaluate."""
        self.settle()
        examination = Evaluator(self.task, self.config)
        final = FinalModel(
            InMemory({index: self.weights(index) for index in self.active()}),
            self.rules,
            self._constants,
            factor=self.config.fleet.outlier_factor,
            how=self.config.finish.final_average,
            tell=examination.add_member,
        )
        self.aside |= final.left_out
        examination.add_average(final.arrays)
        return examination.outcome(self.recalibrated(final.arrays, examination))

    def weights(self, index: int) -> dict[str, NDArray[Any]]:
        """Return a member's whole state dict, not copied."""
        return state_arrays(self.members[index].model)

    def mean(self, indices: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return the mean of some members' state dicts."""
        average = ModelAverage(self.rules, self._constants)
        for index in indices:
            average.add(index, self.weights(index))
        return average.mean()

    def recalibrated(self, weights: Arrays, examination: Evaluator) -> Arrays:
        """Return weights with BatchNorm statistics re-estimated as the options say, by all active members."""
        model = examination.model(weights)
        where = self.config.finish.batchnorm
        if not batchnorm_layers(model) or where == "average":
            return weights
        if where == "clients":
            estimates = {index: self.statistics_of(index, model) for index in self.active()}
            found, self.unused = pooled(
                estimates,
                factor=self.config.fleet.outlier_factor,
                most_examples=self.config.finish.calibration_examples,
            )
            return found.applied_to(weights)
        return estimate(model, examination.server_calibration()).applied_to(weights)

    def statistics_of(self, index: int, model: nn.Module) -> BatchNormStatistics:
        """Return the BatchNorm statistics that a member estimates for the averaged model."""
        return estimate(model, self._training[index].calibration())

    def active(self) -> list[int]:
        """Return the members that the run goes on with."""
        return [index for index in range(len(self.members)) if index not in self.aside]

    def relative_distance(self) -> float:
        """Return the root mean squared distance of the members to their mean, over the mean's norm."""
        vectors = np.stack([self.members[index].parameters() for index in self.active()]).astype(np.float64)
        mean = vectors.mean(axis=0)
        squared = ((vectors - mean) ** 2).sum(axis=1).mean()
        # Not by np.linalg.norm: a BLAS adds up in another order with another number of threads.
        return float(np.sqrt(squared) / max(float(np.sqrt((mean**2).sum())), 1e-30))

    def _train(self, first_step: int, steps: int) -> dict[int, float]:
        """Have every member that is there take the same steps; return their mean losses."""
        losses: dict[int, float] = {}
        for index in self.here:
            member = self.members[index]
            metrics = self._training[index].run(member.model, member.optimizer, first_step, steps)
            losses[index] = metrics["loss"]
        return losses

    def _away(self, index: int, number: int) -> bool:
        if not self._dropout:
            return False
        word = philox.words(self.config.training.seed, "dropout", 1, index=number, member=index)[0]
        return int(word) < self._dropout * 2.0**64

    def _member(self, index: int) -> Member:
        training = self.config.training
        model = placed(initial_model(self.config.task.model, self.task, training.seed), training)
        return Member(
            model,
            make_optimizer(model, training),
            index=index,
            seed=training.seed,
            schedule=Schedule.of(self.config),
        )
