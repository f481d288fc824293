"""A round of the stream plane: a member exchanges while it trains, and is saved where its log grows long."""

from dataclasses import dataclass

from wash_fl.clock import Clock
from wash_fl.config import ExchangeConfig
from wash_fl.member.exchanging import Exchanging, Line, StepOptions
from wash_fl.member.log import ExchangeLog, new_log
from wash_fl.member.member import Member
from wash_fl.member.pace import Round, Work
from wash_fl.member.persistence import Persistence
from wash_fl.member.snapshot import Buffers, Progress, Snapshot
from wash_fl.protocol.messages import EXCHANGES
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.session import Offer


@dataclass(frozen=True)
class StreamRound:
    """A round that is about to be trained.

    Attributes
    ----------
    now : Round
        What is to be trained.
    progress : Progress
        How far the member is as it begins.
    offer : Offer
        Its last offer.
    exchange : ExchangeConfig
        When it exchanges.
    packets : RunPackets
        How slices are read and written.
    """

    now: Round
    progress: Progress
    offer: Offer
    exchange: ExchangeConfig
    packets: RunPackets

    def train(
        self, work: Work, member: Member, line: Line, *, persistence: Persistence, clock: Clock
    ) -> tuple[Offer, dict[str, float]]:
        """Return the last offer and the metrics of a round in which a member exchanged as it trained.

        Parameters
        ----------
        work : callable
            Takes the round's optimizer steps.
        member : Member
            Whose parameters are exchanged.
        line : Line
            To the server.
        persistence : Persistence
            Where the member is saved, with logs.
        clock : Clock
            What waiting is measured by.

        Raises
        ------
        ExchangeError
            If the server stays away while an offer is out, or an exchange is refused.
        StateError
            If the log or the member cannot be written.
        """
        logs = persistence.logs
        assert logs is not None, "the stream plane needs logs"

        def rest(steps: int, buffers: Buffers) -> ExchangeLog:
            """Save the member, so that its log need not grow for ever."""
            last = exchanging.session.offer
            progress = self.progress.after(
                step=self.now.first_step + steps,
                applied=member.applied,
                offered=last.exchange,
                offered_step=last.step,
                log=new_log(),
            )
            persistence.save(Snapshot.of(member, progress, last.values, buffers=buffers))
            return logs.open(progress.log)

        options = StepOptions(
            every=self.exchange.every,
            overlap=self.exchange.overlap,
            first_step=self.now.first_step,
            rest_at=logs.enough(sum(each.numel() for each in member.model.parameters())),
            on_rest=rest,
        )
        log = logs.open(self.progress.log)
        exchanging = Exchanging(
            member, line, log, packets=self.packets, offer=self.offer, options=options, clock=clock
        )
        with exchanging:
            metrics = dict(work(self.now) or {})
        metrics |= {
            EXCHANGES: float(exchanging.session.exchanges),
            "exchange_seconds": exchanging.seconds,
        }
        return exchanging.session.offer, metrics
