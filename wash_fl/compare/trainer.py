"""The whole of WASH in one process, without Flower: the oracle for tests, and the tool for experiments.

The same members, draws, escrow and averaging as on a fleet, so the same seed and options give the same
averaged weights, hash for hash.
"""

from collections.abc import Callable

import torch

from wash_fl.config import RunConfig
from wash_fl.consensus.averaging import ModelAverage
from wash_fl.consensus.batchnorm import batchnorm_layers, estimate, pool
from wash_fl.consensus.finish import Examination, Outcome
from wash_fl.core.codec import FLOAT32, Values, rounded, taken_over
from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow, Settlement
from wash_fl.core.schedule import Schedule
from wash_fl.member.member import Member
from wash_fl.member.training import LocalTraining, make_optimizer, resolve_device
from wash_fl.tasks.division import member_examples
from wash_fl.tasks.models import initial_model
from wash_fl.tasks.task import Task, load_task

OnRound = Callable[[int, Settlement, dict[int, float]], None]


class Trainer:
    """Trains all members of a run in turn, in this process.

    Parameters
    ----------
    config : RunConfig
        The run's options; those of the fleet do not matter here.
    task : Task, optional
        By default the one the options name.
    keep_residual : bool
        A member keeps what its offer's dtype leaves out, as on a fleet. Without it, it takes over what it
        receives as it is: only to see what that costs.

    Attributes
    ----------
    members : list of Member
        By index.
    escrow : Escrow
        Where they exchange.
    aside : dict of int to str
        The members that the run goes on without because of their values, and why.

    Examples
    --------
    >>> config = RunConfig.from_mapping({"members": 2, "rounds": 1, "local_steps": 1})
    >>> outcome = Trainer(config).run()
    >>> len(outcome.sha256)
    64
    """

    def __init__(self, config: RunConfig, task: Task | None = None, *, keep_residual: bool = True) -> None:
        self.config = config
        self._dtype = config.exchange.dtype
        # What float32 leaves out of an offer is nothing, unless the member trains on meanwhile.
        self._keep_residual = keep_residual and (self._dtype != FLOAT32 or config.exchange.overlap)
        self._underway = False
        self._offered: dict[int, Values] = {}
        self.task = load_task(config.task.task) if task is None else task
        self._training = [
            LocalTraining(self.config, self.task, member_examples(self.task, self.config, index), index)
            for index in range(self.config.training.members)
        ]
        self.members = [self._member(index) for index in range(self.config.training.members)]
        draw = Draw(self.config.training.seed, self.members[0].layout, Schedule.of(self.config))
        self.escrow = Escrow(draw, self.config.exchange, outlier_factor=self.config.fleet.outlier_factor)
        self.aside: dict[int, str] = {}

    def run(self, on_round: OnRound | None = None) -> Outcome:
        """Train all rounds, average, re-estimate BatchNorm, and evaluate.

        Parameters
        ----------
        on_round : callable, optional
            Gets the round, its settlement, and the members' losses.
        """
        # One thread and a generator that is put back: the same bits as on a device, and no trace here.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]):
                for number in range(1, self.config.training.rounds + 1):
                    settlement, losses = self.round(number)
                    if on_round is not None:
                        on_round(number, settlement, losses)
                return self.finish()
        finally:
            torch.set_num_threads(threads)

    def round(self, number: int) -> tuple[Settlement, dict[int, float]]:
        """Train every member for a round, with the exchange at its end or those within it.

        Returns
        -------
        Settlement
            Of the last exchange; without members if there was none.
        dict of int to float
            Mean loss by member.
        """
        length = self.config.training.local_steps
        position, end = (number - 1) * length, number * length
        config = self.config.exchange
        every = config.every if config.streams else length
        settlement = Settlement(self.escrow.settled, (), (), None)
        losses = dict.fromkeys(self._active(), 0.0)
        while position < end:
            stop = min(end, (position // every + 1) * every)
            if config.overlap and self._underway:
                stop = position + 1
            else:
                self._deliver_all()
            for index, loss in self._train(position, stop - position).items():
                losses[index] += loss * (stop - position) / length
            position = stop
            self._deliver_all()
            if position % every == 0:
                settlement = self._exchange()
        if config.streams:
            self._deliver_all()
        return settlement, losses

    def _train(self, first_step: int, steps: int) -> dict[int, float]:
        """Have every member take the same steps; return their mean losses."""
        losses: dict[int, float] = {}
        for index in self._active():
            member = self.members[index]
            metrics = self._training[index].run(member.model, member.optimizer, first_step, steps)
            losses[index] = metrics["loss"]
        return losses

    def _exchange(self) -> Settlement:
        """Take an offer of every member, and settle."""
        number = self.escrow.settled + 1
        self.escrow.open(number, self._active())
        for index in self._active():
            offer = self.members[index].offer(number)
            if offer.size:
                self._offered[index] = offer
                self.escrow.offer(index, number, rounded(offer, self._dtype))
        settlement = self.escrow.settle()
        self.aside |= settlement.aside
        self._underway = True
        return settlement

    def finish(self) -> Outcome:
        """Average the members as they are, re-estimate BatchNorm as the options say, and evaluate."""
        examination = Examination(self.task, self.config)
        average = ModelAverage()
        active = self._active()
        self._deliver_all()
        for index in active:
            member = self.members[index]
            weights = {name: each.cpu().numpy() for name, each in member.model.state_dict().items()}
            examination.add_member(member.index, weights)
            average.add(member.index, weights)
        averaged = average.mean()
        examination.add_average(averaged)
        model = examination.model(averaged)
        where = self.config.finish.batchnorm
        if batchnorm_layers(model) and where == "clients":
            statistics = [estimate(model, self._training[index].calibration()) for index in active]
            averaged = pool(statistics).applied_to(averaged)
        elif batchnorm_layers(model) and where == "server":
            averaged = estimate(model, examination.server_calibration()).applied_to(averaged)
        return examination.outcome(averaged)

    def _active(self) -> list[int]:
        return [index for index in range(len(self.members)) if index not in self.aside]

    def _member(self, index: int) -> Member:
        training = self.config.training
        model = initial_model(self.config.task.model, self.task, training.seed)
        model.to(resolve_device(training.device))
        return Member(
            model,
            make_optimizer(model, training),
            index=index,
            seed=training.seed,
            schedule=Schedule.of(self.config),
            exchange_optimizer=self.config.exchange.exchange_optimizer,
        )

    def _deliver_all(self) -> None:
        for member in self.members:
            self._deliver(member)
        self._underway = False

    def _deliver(self, member: Member) -> None:
        waiting = self.escrow.delivery(member.index)
        if waiting is not None:
            values = waiting.values
            if self._keep_residual:
                # It is of the last exchange: whoever has offered since has been given what waited before.
                offered, now = self._offered[member.index], member.offer(waiting.exchange)
                values = taken_over(values, offered=offered, dtype=self._dtype, now=now)
            member.deliver(waiting.exchange, values)
            self.escrow.acknowledge(member.index, waiting.exchange)
