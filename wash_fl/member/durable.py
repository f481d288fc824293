"""A member's side of the protocol: what it does when asked, on a store that outlives its process.

Each operation restores the member from its store, does what is asked, and saves it before it returns:
everything is on disk before anybody hears of it. Nothing is kept in memory from one operation to the next, so
each may be the first of a new process, and what was done twice is as if it were done once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from wash_fl.clock import Clock
from wash_fl.config import ExchangeConfig
from wash_fl.core.layout import Layout
from wash_fl.core.packet import PacketError
from wash_fl.core.plane import plane_of
from wash_fl.errors import ExchangeError, LayoutError, NotJoinedError, reason_of
from wash_fl.member.exchanging import Line
from wash_fl.member.fence import check, meet
from wash_fl.member.log import Logs, new_log
from wash_fl.member.member import Member
from wash_fl.member.pace import Work, checked_seconds, plan, smoothed
from wash_fl.member.parameters import Values, model_sha256
from wash_fl.member.persistence import Persistence
from wash_fl.member.snapshot import Progress, Snapshot, Store
from wash_fl.member.stateful import States
from wash_fl.member.stream_round import StreamRound
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.session import MemberSession, Offer
from wash_fl.protocol.terms import Terms, run_identity

MakeLine = Callable[[Member, Progress], Line]


@dataclass(frozen=True)
class Trained:
    """What became of a round.

    Attributes
    ----------
    progress : Progress
        How far the member is now.
    offer : bytes
        The packet it offers; empty if the exchange has no coordinates.
    metrics : dict of str to float, or None
        What training reported; None if the round was repeated, and nothing trained.
    """

    progress: Progress
    offer: bytes
    metrics: dict[str, float] | None


class DurableMember:
    """A member of a run that may die at any moment.

    After an operation the model is the member's, as it is in the store; after an error it may be anything.

    Parameters
    ----------
    model : torch.nn.Module
        Its weights are replaced by the member's.
    optimizer : torch.optim.Optimizer
        Over the model's parameters; its state is replaced, too.
    states : mapping of str to Stateful, optional
        What else the training loop keeps; kept with the member, and given back before it trains on.
    index : int
        The member's index.
    run : bytes
        Identity of the run.
    store : Store
        Where the member is kept. Nobody else may use it during an operation.
    logs : Logs, optional
        Where it is kept what the member exchanges between two snapshots; the stream plane needs it.
    clock : Clock
        What rounds by seconds, and waiting for the server, are measured by.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        index: int,
        run: bytes,
        store: Store,
        logs: Logs | None = None,
        states: States | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._states = states
        self._model = model
        self._optimizer = optimizer
        self._index = index
        self._run = run
        self._store = store
        self._persistence = Persistence(index, store, logs)
        self._clock = clock or Clock()
        self._made: tuple[Terms, Member] | None = None

    def meet(self, server: str) -> str:
        """Return the fencing token of a server that asks who this is: :func:`wash_fl.member.fence.meet`."""
        return meet(self._store, server)

    def check_fence(self, token: str) -> None:
        """Raise if a request is not of the server that this member met last.

        Raises
        ------
        UnmetError
            If another server has met it since.
        """
        check(self._store, token)

    def introduce(self, terms: Terms, layout: Layout) -> Progress | None:
        """Return how far this member is in a run; None if it holds no state of it.

        Parameters
        ----------
        terms : Terms
            The run's terms.
        layout : Layout
            What the server exchanges.

        Raises
        ------
        LayoutError
            If this member's model is another.
        StateError
            If its state cannot be used.
        """
        member = self._member_for(terms, layout)
        snapshot = self._persistence.load()
        return None if snapshot is None else self._restore(snapshot, member)[0]

    def start(
        self,
        terms: Terms,
        layout: Layout,
        weights: Mapping[str, torch.Tensor],
        *,
        exchange: int = 0,
        incarnation: int = 0,
        anchor: bytes = b"",
    ) -> Progress:
        """Agree to a run's terms and start from weights, unless it has done so already, or from later ones.

        Parameters
        ----------
        terms, layout
            As for :meth:`introduce`.
        weights : mapping of str to torch.Tensor
            A whole state dict: the run's initial weights, or those of a donor.
        exchange : int
            The last settled exchange: no delivery up to it is for this member. 0 at the beginning.
        incarnation : int
            Number of this start, counted by the server. A state of a lower one is replaced; with one of this
            or a higher one the request came twice, or late, and changes nothing.
        anchor : bytes
            The packet of the anchor that comes with a donor's weights; empty if there is none, or these
            weights are the anchor.

        Returns
        -------
        Progress
            How far it is: at the start, or where the state is that it goes on with.

        Raises
        ------
        LayoutError
            If this member's model, or the weights, are of another.
        ExchangeError
            If ``exchange`` is not one of the run's, or ``incarnation`` is below 0.
        StateError
            If its state cannot be used or saved.
        """
        plane = plane_of(terms.exchange)
        if exchange < 0 or (exchange > terms.rounds and plane.once_per_round):
            raise ExchangeError(
                f"a start after exchange {exchange}: it must be from 0 to {terms.rounds}, the run's rounds."
            )
        if incarnation < 0:
            raise ExchangeError(f"start number {incarnation}: they are counted from 0.")
        member = self._member_for(terms, layout)
        snapshot = self._persistence.replaceable(incarnation)
        if snapshot is not None and snapshot.progress.incarnation >= incarnation:
            return self._restore(snapshot, member)[0]
        del snapshot  # as large as the member
        try:
            member.model.load_state_dict(weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise unfit(error) from error
        self._begin_anchor(member, anchor, exchange, incarnation)
        progress = Progress(
            run=self._run.hex(),
            member=self._index,
            layout=member.layout.fingerprint.hex(),
            settings=terms.to_json(),
            initial=model_sha256(member.model),
            incarnation=incarnation,
            joined=exchange,
            applied=exchange,
            log=new_log() if plane.logged else "",
        )
        # Nothing is left to fall back to: what it held before does not count any more.
        self._persistence.save(Snapshot.of(member, progress), anew=True)
        return progress

    def train(
        self,
        number: int,
        delivery: bytes,
        work: Work,
        seconds: float = 0.0,
        line: MakeLine | None = None,
        *,
        exchange: int = 0,
    ) -> Trained:
        """Apply a delivery, train for a round, and offer a slice; a repeated round offers the same again.

        Parameters
        ----------
        number : int
            Number of the round, from 1.
        delivery : bytes
            The packet that waits for this member; empty if none does.
        work : callable
            Takes the round's optimizer steps; not called for a repeated round.
        seconds : float
            About how long the round is to take; 0 if it is measured in steps.
        line : callable, optional
            On the stream plane, makes the member's line to the server: the member exchanges while it
            trains. Such a round goes on where it was interrupted, and offers nothing at its end.
        exchange : int
            The exchange for which it offers at the end of the round, where it is not the round's number: on
            the stream plane, if members do not reach the port. All before it are settled, and none is open,
            so nothing is out any more that this delivery does not answer.

        Raises
        ------
        NotJoinedError
            If it holds no state of this run, or one from before what is delivered.
        ExchangeError
            If the round is over, or training diverged; the state is what it was.
        LayoutError
            If training changed what the model's state dict looks like; the state is what it was.
        PacketError
            If the delivery is refused; the state is what it was.
        StateError
            If its state cannot be used or saved.
        """
        snapshot = self._persistence.needed()
        progress = snapshot.progress
        terms = _terms(progress.settings)
        seconds = checked_seconds(seconds)
        once = line is None
        self._refuse_round(number, progress, terms, once=once, exchange=exchange)
        member = self._member(terms)
        progress, offer = self._restore(snapshot, member)
        del snapshot  # as large as the member
        session = self._session(member, progress, offer)
        last = session.offer
        if number == progress.round:
            session.check(delivery)
            again = offer is not None and offer.size and once and exchange in (0, last.exchange)
            return Trained(progress, session.packet() if again else b"", None)
        session.apply(delivery)
        progress = progress.after(applied=member.applied)
        now = plan(number, seconds, progress, terms)
        began = self._clock.now()
        if line is None:
            metrics = dict(work(now) or {})
        else:
            packets = RunPackets(self._run, member.draw)
            exchanging = StreamRound(now, progress, last, terms.exchange, packets)
            last, metrics = exchanging.train(
                work, member, line(member, progress), persistence=self._persistence, clock=self._clock
            )
        if seconds:
            took = self._clock.now() - began
            pace = smoothed(progress.seconds_per_step, seconds=took, steps=now.steps)
            progress = progress.after(seconds_per_step=pace, last_steps=now.steps)
        # A diverged member is refused before its state replaces the last good one.
        self._check_finite(member, number)
        member.check_state()
        step = now.first_step + now.steps
        if line is None:
            packet = session.make_offer(exchange or number, step)
            last = session.offer
        else:
            packet = b""
        progress = progress.after(
            round=number,
            step=step,
            applied=member.applied,
            offered=last.exchange,
            offered_step=last.step,
            log=new_log() if plane_of(terms.exchange).logged else "",
        )
        self._persistence.save(Snapshot.of(member, progress, last.values))
        nothing = last.values is None or last.values.size == 0
        return Trained(progress, b"" if nothing else packet, metrics)

    def collect(self, delivery: bytes) -> Progress:
        """Apply the last delivery; the model then is what this member hands in.

        Raises
        ------
        NotJoinedError, PacketError, StateError
            As for :meth:`train`.
        """
        snapshot = self._persistence.needed()
        member = self._member(_terms(snapshot.progress.settings))
        progress, offer = self._restore(snapshot, member)
        del snapshot
        if self._session(member, progress, offer).apply(delivery):
            progress = progress.after(applied=member.applied, log=new_log() if progress.log else "")
            self._persistence.save(Snapshot.of(member, progress, offer))
        return progress

    def _restore(self, snapshot: Snapshot, member: Member) -> tuple[Progress, Values | None]:
        """Make the member what it was; return how far it is, and its offer."""
        return self._persistence.restore(snapshot, member, anchored=self._exchange.anchored)

    def _refuse_round(
        self, number: int, progress: Progress, terms: Terms, *, once: bool, exchange: int
    ) -> None:
        """Refuse a request to train that is none of this run, or too late; ``once`` is what it asks for."""
        if not 1 <= number <= terms.rounds:
            raise ExchangeError(f"round {number} is none of this run: it has rounds 1 to {terms.rounds}.")
        by_rounds = plane_of(terms.exchange).once_per_round
        if once != (by_rounds or exchange > 0) or (by_rounds and exchange):
            raise ExchangeError(
                f"a request to train that does not fit a run on the {terms.exchange.exchange_plane} plane: "
                "the ServerApp must use WashStrategy of the same version."
            )
        over = number > progress.round and (exchange or number) <= progress.applied and once
        if number < progress.round or over:
            raise ExchangeError(
                f"round {number} is over for member {self._index}, which is at round {progress.round} and "
                f"has seen exchange {progress.applied}."
            )

    def _begin_anchor(self, member: Member, packet: bytes, exchange: int, incarnation: int) -> None:
        """Let a member start with the anchor that comes with its weights, or with these as the anchor."""
        if not self._exchange.anchored:
            return
        if packet:
            try:
                member.anchor = RunPackets(self._run, member.draw).read_anchor(packet, member.index, exchange)
            except PacketError as error:
                # It has to be sent once more; a member that refused to start would not be asked again.
                raise NotJoinedError(str(error), fell_back=True) from error
        elif exchange or incarnation:
            raise ExchangeError("a request to start anew without the anchor: update the older side.")
        else:
            member.begin_anchor()

    def _member(self, terms: Terms) -> Member:
        if self._made is None or self._made[0] != terms:
            assert run_identity(terms) == self._run, "terms of another run"
            member = Member(
                self._model,
                self._optimizer,
                index=self._index,
                seed=terms.seed,
                schedule=terms.schedule,
                states=self._states,
            )
            self._made = terms, member
        return self._made[1]

    def _member_for(self, terms: Terms, layout: Layout) -> Member:
        """Return the member if it exchanges what the server does."""
        member = self._member(terms)
        if difference := layout.difference(member.layout):
            raise LayoutError(
                f"member {self._index}'s model is not the server's: it has {difference}. "
                "All members and the server need the same model and the same exchange-optimizer."
            )
        return member

    def _session(self, member: Member, progress: Progress, offer: Values | None) -> MemberSession:
        """Return what decides about a member's exchanges, which is saved as a whole before it replies."""
        last = Offer(progress.offered, offer, progress.offered_step)
        return MemberSession(member, RunPackets(self._run, member.draw), last)

    @property
    def _exchange(self) -> ExchangeConfig:
        """What the terms say about exchanges; there are terms as soon as there is a member."""
        assert self._made is not None
        return self._made[0].exchange

    def _check_finite(self, member: Member, number: int) -> None:
        """Refuse a member that diverged, also where this exchange does not look."""
        values = member.parameters()
        if not np.isfinite(values).all():
            raise ExchangeError(
                f"member {self._index} has {int((~np.isfinite(values)).sum())} parameters that are infinite "
                f"or not numbers after round {number}: its training diverged; lower learning-rate."
            )


def unfit(error: Exception) -> LayoutError:
    """Return what is to be said of weights that PyTorch does not load."""
    reason = reason_of(error, 300)
    return LayoutError(f"the server's weights do not fit this client's model: {reason}.")


@lru_cache(maxsize=8)
def _terms(settings: str) -> Terms:
    return Terms.from_json(settings)
