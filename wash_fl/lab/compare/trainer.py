"""The whole of WASH in one process, without Flower: the oracle for tests, and the tool for experiments.

The same members, draws, escrow and averaging as on a fleet, so the same seed and options give the same
averaged weights, hash for hash.
"""

from wash_fl.config import RunConfig
from wash_fl.core.anchor import first_anchor
from wash_fl.core.codec import rounded
from wash_fl.core.draw import Draw
from wash_fl.core.packet import RUN_BYTES
from wash_fl.core.plane import plane_of
from wash_fl.core.schedule import Schedule
from wash_fl.lab.compare.cohort import Cohort
from wash_fl.lab.compare.post import NoPost, Post
from wash_fl.protocol.escrow import Escrow, Settlement
from wash_fl.protocol.journal_rows import Values
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.session import MemberSession, Offer
from wash_fl.tasks.task import Task

NO_RUN = bytes(RUN_BYTES)
"""Identity of a run that is nobody else's."""


class Trainer(Cohort):
    """Trains all members of a run in turn, in this process.

    Parameters
    ----------
    config, task, dropout
        As for :class:`~wash_fl.lab.compare.cohort.Cohort`.
    post : Post, optional
        Is told of every slice, as it would travel.
    keep_residual : bool
        A member keeps what its offer's dtype leaves out, as on a fleet. Without it, it takes over what it
        receives as it is: only to see what that costs.

    Attributes
    ----------
    draw : Draw
        The coordinates of the exchanges.
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
        self._plane = plane_of(config.exchange)
        self._every = self._plane.steps_between(config.exchange, config.training.local_steps)
        self._underway = False
        self.draw = draw = Draw(config.training.seed, self.members[0].layout, Schedule.of(config))
        first = None
        if config.exchange.anchored:
            first = first_anchor(draw.layout, self.weights(0))
            for member in self.members:
                member.begin_anchor()
        self.escrow = Escrow(draw, config.exchange, outlier_factor=config.fleet.outlier_factor, first=first)
        self._packets = RunPackets(NO_RUN, draw)
        self._sessions = [
            MemberSession(member, self._packets, Offer(), keep_residual=keep_residual)
            for member in self.members
        ]
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
        if self.is_time(position):
            self._exchange()
            if position % self.config.training.local_steps:
                self._deliver_before_training()

    def is_time(self, position: int) -> bool:
        """Return whether members exchange after so many steps of the run."""
        return position % self._every == 0

    @property
    def knob(self) -> str:
        """How probable an exchange is, and in which dtype."""
        return f"p {self.config.exchange.p:.4g}, {self._dtype}"

    def end_round(self) -> None:
        """Take what waits, where a round does not end with an offer."""
        if not self._plane.once_per_round:
            self._deliver_all(self.here)

    def settle(self) -> None:
        """Take what waits."""
        self._deliver_all(range(len(self.members)))

    def _exchange(self) -> None:
        """Take an offer of every member that is there, and settle."""
        number = self.escrow.settled + 1
        self.escrow.open(number, self.here)
        for index in self.here:
            values, chain = self.offer_of(index, number)
            if values.size:
                self.escrow.offer(index, number, values, chain)
        self.settlement = self.escrow.settle()
        self.aside |= self.settlement.aside
        self._underway = True

    def offer_of(self, index: int, number: int) -> tuple[Values, int]:
        """Return what a member offers for an exchange, as it travels, and the chain of its anchor."""
        session = self._sessions[index]
        packet = session.make_offer(number, 0)
        values = session.offer.values
        assert values is not None, "an offer of nothing"
        if values.size:
            self._post.offered(self.members[index], number, packet)
        if self.config.exchange.anchored:
            offer = self._packets.read_offer(packet, index, number)
            return offer.values, offer.chain
        return rounded(values, self._dtype), 0

    def _deliver_before_training(self) -> None:
        if not (self.config.exchange.overlap and self._underway):
            self._deliver_all(self.here)

    def _deliver_all(self, indices: "range | list[int]") -> None:
        for index in indices:
            self._deliver(index)
        self._underway = False

    def _deliver(self, index: int) -> None:
        if self.escrow.owes(index):
            member, packet = self.members[index], self.escrow.packet(self._packets, index)
            self._post.delivered(member, self.escrow.settled, packet)
            self._sessions[index].apply(packet)
            self.escrow.acknowledge(index, member.applied)
