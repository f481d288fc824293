"""The whole of WASH in one process, without Flower: the oracle for tests, and the tool for experiments.

The same members, draws, escrow and averaging as on a fleet, so the same seed and options give the same
averaged weights, hash for hash.
"""

from wash_fl.compare.cohort import Cohort
from wash_fl.compare.post import NoPost, Post
from wash_fl.config import RunConfig
from wash_fl.core.codec import FLOAT32, Values, rounded, taken_over
from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow, Settlement
from wash_fl.core.schedule import Schedule
from wash_fl.member.member import Member
from wash_fl.tasks.task import Task


class Trainer(Cohort):
    """Trains all members of a run in turn, in this process.

    Parameters
    ----------
    config, task, dropout
        As for :class:`~wash_fl.compare.cohort.Cohort`.
    post : Post, optional
        Is told of every slice, as it would travel.
    keep_residual : bool
        A member keeps what its offer's dtype leaves out, as on a fleet. Without it, it takes over what it
        receives as it is: only to see what that costs.

    Attributes
    ----------
    escrow : Escrow
        Where the members exchange.
    settlement : Settlement
        Of the last exchange; without members if the last round had none.

    Examples
    --------
    >>> config = RunConfig.from_mapping({"members": 2, "rounds": 1, "local_steps": 1})
    >>> outcome = Trainer(config).run()
    >>> len(outcome.sha256)
    64
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task | None = None,
        *,
        dropout: float = 0.0,
        post: Post | None = None,
        keep_residual: bool = True,
    ) -> None:
        super().__init__(config, task, dropout=dropout)
        config = self.config
        self._post = NoPost() if post is None else post
        self._dtype = config.exchange.dtype
        # What float32 leaves out of an offer is nothing, unless the member trains on meanwhile.
        self._keep_residual = keep_residual and (self._dtype != FLOAT32 or config.exchange.overlap)
        self._every = config.exchange.every if config.exchange.streams else config.training.local_steps
        self._underway = False
        self._offered: dict[int, Values] = {}
        draw = Draw(config.training.seed, self.members[0].layout, Schedule.of(config))
        self.escrow = Escrow(draw, config.exchange, outlier_factor=config.fleet.outlier_factor)
        self.settlement = Settlement(0, (), (), None)

    def begin_round(self) -> None:
        """Take what waits, unless it is to arrive while the members train."""
        self.settlement = Settlement(self.escrow.settled, (), (), None)
        self._deliver_before_training()

    def next_stop(self, position: int) -> int:
        """Return the step of the next exchange; with overlap, the one after which a delivery is applied."""
        if self.config.exchange.overlap and self._underway:
            return position + 1
        return (position // self._every + 1) * self._every

    def after_step(self, position: int) -> None:
        """Take what waits, and exchange if it is time."""
        self._deliver_all(self.here)
        if position % self._every == 0:
            self._exchange()
            if position % self.config.training.local_steps:
                self._deliver_before_training()

    def end_round(self) -> None:
        """Take what waits on the stream plane, where a round ends with it."""
        if self.config.exchange.streams:
            self._deliver_all(self.here)

    def settle(self) -> None:
        """Take what waits."""
        self._deliver_all(range(len(self.members)))

    def _exchange(self) -> None:
        """Take an offer of every member that is there, and settle."""
        number = self.escrow.settled + 1
        self.escrow.open(number, self.here)
        for index in self.here:
            offer = self.members[index].offer(number)
            if offer.size:
                self._offered[index] = offer
                self._post.offered(self.members[index], number, offer)
                self.escrow.offer(index, number, rounded(offer, self._dtype))
        self.settlement = self.escrow.settle()
        self.aside |= self.settlement.aside
        self._underway = True

    def _deliver_before_training(self) -> None:
        if not (self.config.exchange.overlap and self._underway):
            self._deliver_all(self.here)

    def _deliver_all(self, indices: "range | list[int]") -> None:
        for index in indices:
            self._deliver(self.members[index])
        self._underway = False

    def _deliver(self, member: Member) -> None:
        waiting = self.escrow.delivery(member.index)
        if waiting is not None:
            self._post.delivered(member, waiting)
            values = waiting.values
            if self._keep_residual:
                # It is of the last exchange: whoever has offered since has been given what waited before.
                offered, now = self._offered[member.index], member.offer(waiting.exchange)
                values = taken_over(values, offered=offered, dtype=self._dtype, now=now)
            member.deliver(waiting.exchange, values)
            self.escrow.acknowledge(member.index, waiting.exchange)
