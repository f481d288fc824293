"""The member's side of the round plane: Flower message handlers around a user's model and training.

Every message may find a new process, so a handler restores the member from disk, does what is asked,
and saves it before it replies. Nothing is kept in memory between messages.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from wash_fl.consensus import batchnorm
from wash_fl.core.identity import run_identity
from wash_fl.core.packet import Direction, Slice, decode, encode
from wash_fl.core.terms import Terms
from wash_fl.errors import ConfigError, ExchangeError, LayoutError, WashError
from wash_fl.member.member import Member
from wash_fl.member.parameters import model_sha256
from wash_fl.member.state import Progress, load, read_progress, save, state_path
from wash_fl.planes import records
from wash_fl.planes.records import Answer, Status


@dataclass(frozen=True)
class Round:
    """What a member is asked to do in a round.

    Attributes
    ----------
    number : int
        From 1.
    first_step : int
        The number of its first optimizer step in the whole run, from 0: the same for all members, also for
        one that missed rounds.
    steps : int
        How many optimizer steps to take.
    terms : Terms
        The terms of the run.
    """

    number: int
    first_step: int
    steps: int
    terms: Terms


@dataclass(frozen=True, kw_only=True)
class Participant:
    """What a client brings: a model, an optimizer, and how to train it for one round.

    Attributes
    ----------
    model : torch.nn.Module
        Its weights are replaced by the member's; it may live on any device.
    optimizer : torch.optim.Optimizer
        Over the model's parameters.
    train : callable
        ``train(round)`` takes ``round.steps`` optimizer steps and returns metrics by name.
    evaluate : callable, optional
        Returns metrics of the model as it is, such as ``{"accuracy": 0.9}``; asked now and then.
    calibration : callable, optional
        Returns input batches, to re-estimate the averaged model's BatchNorm statistics.
    """

    model: nn.Module
    optimizer: Optimizer
    train: Callable[[Round], dict[str, float] | None]
    evaluate: Callable[[], dict[str, float]] | None = None
    calibration: Callable[[], Iterable[torch.Tensor]] | None = None


Build = Callable[[Context], Participant]


def participant(app: ClientApp) -> Callable[[Build], Build]:
    """Make a Flower client a member: register the handlers that WashStrategy talks to.

    The decorated function gets Flower's :class:`~flwr.app.Context` and returns a :class:`Participant`; it
    is called once per message.

    Examples
    --------
    >>> app = ClientApp()
    >>> @participant(app)
    ... def member(context: Context) -> Participant:
    ...     model = nn.Linear(4, 2)
    ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ...     return Participant(model=model, optimizer=optimizer, train=lambda round: {"loss": 0.0})
    """

    def register(build: Build) -> Build:
        def handler(act: Callable[["Seat", Message], Message]) -> Callable[[Message, Context], Message]:
            def handle(message: Message, context: Context) -> Message:
                index = member_index(context)
                try:
                    return act(Seat(build(context), index, state_folder(context)), message)
                except WashError as error:
                    # Said in the protocol's own words: an exception would reach the server as a stack trace.
                    return records.answer(message, Answer(Status.REFUSED, index, str(error)))

            return handle

        app.query(records.JOIN.removeprefix("query."))(handler(Seat.join))
        app.train()(handler(Seat.train))
        app.query(records.COLLECT.removeprefix("query."))(handler(Seat.collect))
        app.query(records.RECALIBRATE.removeprefix("query."))(handler(Seat.recalibrate))
        app.query(records.LEAVE.removeprefix("query."))(handler(Seat.leave))
        return build

    return register


def member_index(context: Context) -> int:
    """Return a client's member index, from its node's configuration.

    Raises
    ------
    ConfigError
        If the node has no valid ``partition-id``.
    """
    index = context.node_config.get("partition-id")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise ConfigError(
            f"this node's partition-id is {index!r}: start its SuperNode with "
            "--node-config 'partition-id=0' (1, 2, ... on the others)."
        )
    return index


def state_folder(context: Context) -> Path:
    """Return the folder in which a client keeps its member.

    The first that is set of: ``state-dir`` in the node's configuration, ``state-dir`` in the run's, the
    environment's ``WASH_FL_STATE``, and ``~/.local/state/wash-fl``.
    """
    places = (
        context.node_config.get("state-dir"),
        context.run_config.get("state-dir"),
        os.environ.get("WASH_FL_STATE"),
    )
    chosen = next((str(place) for place in places if place), "~/.local/state/wash-fl")
    return Path(chosen).expanduser()


class Seat:
    """A member for the time of one message."""

    def __init__(self, brought: Participant, index: int, folder: Path) -> None:
        self._brought = brought
        self._index = index
        self._folder = folder

    def join(self, message: Message) -> Message:
        """Agree to a run's terms and start from its initial weights, or say how far this member is."""
        terms = records.terms_of(message)
        if self._index >= terms.members:
            raise ConfigError(
                f"this node's partition-id is {self._index} in a run of {terms.members} members: "
                f"use 0 to {terms.members - 1}, or raise members."
            )
        run = run_identity(terms)
        path = state_path(self._folder, run, self._index)
        progress = read_progress(path)
        if progress is None:
            arrays = message.content.array_records.get(records.ARRAYS)
            if arrays is None:
                raise ExchangeError("a join request without initial weights: pass initial_arrays to start().")
            progress = self._start(path, run, terms, arrays, message)
        return records.answer(
            message,
            Answer(
                Status.DONE,
                self._index,
                round=progress.round,
                applied=progress.applied,
                initial=progress.initial,
            ),
        )

    def train(self, message: Message) -> Message:
        """Apply the delivery, train for a round, save, and offer a slice; a repeated round only offers."""
        run = records.field(message, "run", bytes)
        number = records.field(message, "round", int)
        path = state_path(self._folder, run, self._index)
        progress = read_progress(path)
        if progress is None:
            return records.answer(message, Answer(Status.NOT_JOINED, self._index))
        if number < progress.round:
            raise ExchangeError(
                f"round {number} is over for member {self._index}, which is at round {progress.round}."
            )
        terms = Terms.from_json(progress.settings)
        member = self._member(terms)
        offer = load(path, member, progress)
        metrics: dict[str, float] = {}
        if number > progress.round:
            self._deliver(message, member, run)
            step = (number - 1) * terms.local_steps
            metrics = self._brought.train(Round(number, step, terms.local_steps, terms)) or {}
            offer = member.offer(number)
            # Encoding refuses a diverged member before its state replaces the last good one.
            packet = self._packet(member, run, number, offer)
            progress = progress.after(round=number, step=step + terms.local_steps, applied=member.applied)
            save(path, member, progress, offer)
        else:
            assert offer is not None
            packet = self._packet(member, run, number, offer)
        if records.field(message, "evaluate", bool) and self._brought.evaluate is not None:
            metrics |= self._brought.evaluate()
        given = Answer(Status.DONE, self._index, round=progress.round, applied=progress.applied, offer=packet)
        return records.answer(message, given, metrics=metrics)

    def collect(self, message: Message) -> Message:
        """Apply the last delivery and hand in the whole model."""
        run = records.field(message, "run", bytes)
        path = state_path(self._folder, run, self._index)
        progress = read_progress(path)
        if progress is None:
            return records.answer(message, Answer(Status.NOT_JOINED, self._index))
        member = self._member(Terms.from_json(progress.settings))
        offer = load(path, member, progress)
        if self._deliver(message, member, run):
            progress = progress.after(applied=member.applied)
            save(path, member, progress, offer)
        state: dict[str, NDArray[Any]] = {
            name: each.detach().cpu().numpy() for name, each in member.model.state_dict().items()
        }
        given = Answer(Status.DONE, self._index, round=progress.round, applied=progress.applied)
        return records.answer(message, given, arrays=records.array_record(state))

    def recalibrate(self, message: Message) -> Message:
        """Estimate the averaged model's BatchNorm statistics over this client's own data."""
        if self._brought.calibration is None:
            raise ConfigError(
                "this client has no calibration data: give its Participant calibration=..., or choose "
                'batchnorm = "average" or "server".'
            )
        model = self._brought.model
        _load_arrays(model, message.content.array_records[records.ARRAYS])
        statistics = batchnorm.estimate(model, self._brought.calibration())
        arrays = {**statistics.buffers(), records.EXAMPLES: np.array([statistics.examples])}
        given = Answer(Status.DONE, self._index)
        return records.answer(message, given, arrays=records.array_record(arrays))

    def leave(self, message: Message) -> Message:
        """Remove this member's state of a finished run."""
        path = state_path(self._folder, records.field(message, "run", bytes), self._index)
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        return records.answer(message, Answer(Status.DONE, self._index))

    def _start(self, path: Path, run: bytes, terms: Terms, arrays: ArrayRecord, message: Message) -> Progress:
        _load_arrays(self._brought.model, arrays)
        member = self._member(terms)
        theirs = records.layout_from_json(records.field(message, "layout", str))
        if difference := theirs.difference(member.layout):
            raise LayoutError(
                f"member {self._index}'s model is not the server's: it has {difference}. "
                "All members and the server need the same model and the same exchange-optimizer."
            )
        progress = Progress(
            run=run.hex(),
            member=self._index,
            layout=member.layout.fingerprint.hex(),
            settings=terms.to_json(),
            initial=model_sha256(member.model),
        )
        save(path, member, progress)
        return progress

    def _member(self, terms: Terms) -> Member:
        return Member(
            self._brought.model,
            self._brought.optimizer,
            index=self._index,
            seed=terms.seed,
            schedule=terms.schedule,
            exchange_optimizer=terms.exchange.exchange_optimizer,
        )

    def _deliver(self, message: Message, member: Member, run: bytes) -> bool:
        """Apply the delivery in a request, if there is one and it was not applied before."""
        packet = records.field(message, "delivery", bytes)
        if not packet:
            return False
        delivery = decode(
            packet,
            direction=Direction.DELIVERY,
            run=run,
            layout=member.layout,
            member=member.index,
            count=member.draw.count,
        )
        return member.deliver(delivery.exchange, delivery.values)

    @staticmethod
    def _packet(member: Member, run: bytes, exchange: int, offer: NDArray[np.float32]) -> bytes:
        if offer.size == 0:
            return b""
        return encode(Slice(Direction.OFFER, run, member.layout, exchange, member.index, offer))


def _load_arrays(model: nn.Module, arrays: ArrayRecord) -> None:
    try:
        model.load_state_dict(arrays.to_torch_state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise LayoutError(f"the server's weights do not fit this client's model: {reason[:300]}") from error
