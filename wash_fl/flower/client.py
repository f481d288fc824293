"""The member's side of the round plane: Flower message handlers around a user's model and training.

A handler reads a message, has the member on this device's disk do what it asks
(:mod:`wash_fl.member.durable`), and replies.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from wash_fl.core.packet import RUN_BYTES
from wash_fl.errors import (
    ConfigError,
    ExchangeError,
    NotJoinedError,
    UnmetError,
    UnreachedError,
    WashError,
    described,
)
from wash_fl.faults import points
from wash_fl.files import members_folder
from wash_fl.flower import records
from wash_fl.member.durable import DurableMember, unfit
from wash_fl.member.fence import check
from wash_fl.member.pace import Round
from wash_fl.member.parameters import model_sha256
from wash_fl.member.schedules import check_handed_over, none_is_made
from wash_fl.member.state import FileStore
from wash_fl.member.state_dict import state_arrays
from wash_fl.member.stateful import Stateful, check_stateful
from wash_fl.member.steps import own_steps
from wash_fl.member.training import enough_for_batchnorm
from wash_fl.protocol.classes import checked_classes, classes_from_json, refuse_other_classes
from wash_fl.protocol.messages import Answer, Status
from wash_fl.protocol.terms import run_identity
from wash_fl.protocol.text import printable
from wash_fl.sources import refuse_other_sources
from wash_fl.stream.line import line_of

logger = logging.getLogger("flwr.wash_fl")

__all__ = ["Participant", "Round", "Seat", "member_index", "participant", "state_folder"]


@dataclass(frozen=True, kw_only=True)
class Participant:
    """What a client brings: a model, an optimizer, and how to train it for one round.

    Attributes
    ----------
    model : torch.nn.Module
        Its weights are replaced by the member's; it may live on any device. If it is made with those that the
        run begins with, from the same seed or a file on this client, they need not be sent.
    optimizer : torch.optim.Optimizer
        Over the model's parameters.
    train : callable
        ``train(round)`` takes ``round.steps`` optimizer steps and returns metrics by name.
    evaluate : callable, optional
        Returns metrics of the model as it is, such as ``{"accuracy": 0.9}``; asked now and then.
    calibration : callable, optional
        Returns input batches, to re-estimate the averaged model's BatchNorm statistics.
    state : mapping of str to Stateful
        What else the training loop keeps from step to step: whatever has ``state_dict`` and
        ``load_state_dict``, by a name of your own, such as ``{"schedule": schedule}``. A learning-rate
        scheduler must be here. It is saved with the member and given back before it trains on; a member that
        joins late, or starts anew, starts with it as it is made.
    classes : sequence of str
        The names of the classes, in the order of the model's outputs: if the server announces its own, they
        must be the same.

    Raises
    ------
    ConfigError
        If ``state`` holds what cannot be kept, or ``classes`` has no order.
    """

    model: nn.Module
    optimizer: Optimizer
    train: Callable[[Round], dict[str, float] | None]
    evaluate: Callable[[], dict[str, float]] | None = None
    calibration: Callable[[], Iterable[torch.Tensor]] | None = None
    state: Mapping[str, Stateful] = field(default_factory=dict)
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_stateful(self.state, {"model": self.model, "optimizer": self.optimizer})
        checked_classes(self.classes)


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
                    refuse_other_sources(records.optional_field(message, "software", str, ""))
                    return act(Seat(build(context), index, state_folder(context)), message)
                except NotJoinedError as error:
                    reason = str(error) if error.fell_back else ""
                    return records.answer(message, Answer(Status.NOT_JOINED, index, reason))
                except UnmetError as error:
                    return records.answer(message, Answer(Status.UNMET, index, str(error)))
                except WashError as error:
                    # Said in the protocol's own words: an exception would reach the server as a stack trace.
                    cut_off = isinstance(error, UnreachedError)
                    refusal = Answer(Status.REFUSED, index, str(error), unreached=cut_off)
                    return records.answer(message, refusal)
                except Exception as error:
                    logger.exception("member %d: the client's own code raised", index)
                    return records.answer(message, Answer(Status.REFUSED, index, printable(described(error))))

            return handle

        app.query(records.JOIN.removeprefix("query."))(handler(Seat.join))
        app.train()(handler(Seat.train))
        app.query(records.COLLECT.removeprefix("query."))(handler(Seat.collect))
        app.query(records.RECALIBRATE.removeprefix("query."))(handler(Seat.recalibrate))
        app.query(records.LEAVE.removeprefix("query."))(handler(Seat.leave))
        app.query(records.REMIND.removeprefix("query."))(_reminded)
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
    return members_folder(context.node_config.get("state-dir"), context.run_config.get("state-dir"))


class Seat:
    """A member for the time of one message."""

    def __init__(self, brought: Participant, index: int, folder: Path) -> None:
        self._brought = brought
        self._index = index
        self._folder = folder

    def join(self, message: Message) -> Message:
        """Say how far this member is in a run, or start it from the weights that come, or are named."""
        terms = records.terms_of(message)
        if self._index >= terms.members:
            raise ConfigError(
                f"this node's partition-id is {self._index} in a run of {terms.members} members: "
                f"use 0 to {terms.members - 1}, or raise members."
            )
        layout = records.layout_from_json(records.field(message, "layout", str))
        exchange = records.optional_field(message, "exchange", int, 0)
        incarnation = records.optional_field(message, "incarnation", int, 0)
        announced = records.optional_field(message, "classes", str, "")
        refuse_other_classes(classes_from_json(announced), self._brought.classes)
        self._check_schedules()
        arrays = message.content.array_records.get(records.ARRAYS)
        if arrays is None and incarnation:
            raise ExchangeError("a request to start anew without weights: update the older side.")
        with self._member(run_identity(terms), message) as member:
            token = member.meet(records.optional_field(message, "server", str, ""))
            if arrays is None:
                progress = member.introduce(terms, layout)
                if progress is None and self._holds(records.optional_field(message, "initial", str, "")):
                    progress = member.start(terms, layout, self._brought.model.state_dict())
            else:
                weights = _state_dict(arrays)
                anchor = records.optional_field(message, "anchor", bytes, b"")
                progress = member.start(
                    terms, layout, weights, exchange=exchange, incarnation=incarnation, anchor=anchor
                )
        answer = Answer(Status.NOT_JOINED, self._index) if progress is None else progress.answer()
        return records.answer(message, replace(answer, fence=token))

    def train(self, message: Message) -> Message:
        """Apply the delivery, train for a round, save, and offer a slice; a repeated round only offers."""
        run = _run(message)
        number = records.field(message, "round", int)
        seconds = records.optional_field(message, "seconds", float, 0.0)
        exchange = records.optional_field(message, "exchange", int, 0)
        delivery = records.field(message, "delivery", bytes)
        evaluate = records.field(message, "evaluate", bool)

        def work(now: Round) -> dict[str, float] | None:
            brought = self._brought
            with (
                none_is_made(brought.optimizer, brought.state),
                own_steps(brought.optimizer, brought.state, brought.model),
            ):
                metrics = brought.train(now)
            points.reach("trained", member=self._index, exchange=number)
            return metrics

        self._check_schedules()
        ticket = records.ticket_of(message)
        line = None if ticket is None else line_of(ticket, run, number)
        points.reach("asked", member=self._index, exchange=number)
        with self._member(run, message) as member:
            trained = member.train(number, delivery, work, seconds, line, exchange=exchange)
        points.reach("saved", member=self._index, exchange=number)
        metrics = trained.metrics or {}
        if evaluate and self._brought.evaluate is not None:
            metrics |= self._brought.evaluate()
        return records.answer(message, trained.progress.answer(trained.offer), metrics=metrics)

    def collect(self, message: Message) -> Message:
        """Apply the last delivery and hand in the whole model."""
        delivery = records.field(message, "delivery", bytes)
        with self._member(_run(message), message) as member:
            progress = member.collect(delivery)
        arrays = records.array_record(state_arrays(self._brought.model))
        return records.answer(message, progress.answer(), arrays=arrays)

    def recalibrate(self, message: Message) -> Message:
        """Estimate the averaged model's BatchNorm statistics over this client's own data."""
        if self._brought.calibration is None:
            raise ConfigError(
                "this client has no calibration data: give its Participant calibration=..., or choose "
                'batchnorm = "average" or "server".'
            )
        arrays = message.content.array_records.get(records.ARRAYS)
        if arrays is None:
            raise ExchangeError("a request to recalibrate without the averaged model: update the older side.")
        model = self._brought.model
        try:
            model.load_state_dict(_state_dict(arrays))
        except (RuntimeError, TypeError) as error:
            raise unfit(error) from error
        with enough_for_batchnorm("calibration-examples"):
            statistics = batchnorm.estimate(model, self._brought.calibration())
        count: NDArray[Any] = np.array([statistics.examples], dtype=np.int64)
        found = {**statistics.buffers(), records.EXAMPLES: count}
        given = Answer(Status.DONE, self._index)
        return records.answer(message, given, arrays=records.array_record(found))

    def leave(self, message: Message) -> Message:
        """Remove this member's state of a finished run."""
        store = self._store(_run(message))
        with store.locked():
            check(store, _fence(message))
            store.remove()
        return records.answer(message, Answer(Status.DONE, self._index))

    @contextmanager
    def _member(self, run: bytes, message: Message) -> Iterator[DurableMember]:
        """Give this device's member of a run for a request, with no other process at it meanwhile.

        Raises
        ------
        UnmetError
            If the request is not of the server that the member met last.
        """
        store = self._store(run)
        with store.locked():
            member = DurableMember(
                self._brought.model,
                self._brought.optimizer,
                index=self._index,
                run=run,
                store=store,
                logs=store.logs,
                states=self._brought.state,
            )
            member.check_fence(_fence(message))
            yield member

    def _holds(self, weights: str) -> bool:
        """Return whether the model that this client has made holds the weights of this hash by itself."""
        return bool(weights) and model_sha256(self._brought.model) == weights

    def _check_schedules(self) -> None:
        check_handed_over(self._brought.optimizer, self._brought.state, self._brought.train)

    def _store(self, run: bytes) -> FileStore:
        return FileStore(self._folder, run, self._index)


def _reminded(message: Message, context: Context) -> Message:
    """Answer a reminder, with neither model nor state: another process may be at work with them."""
    return records.answer(message, Answer(Status.DONE, member_index(context)))


def _fence(message: Message) -> str:
    token: str = records.optional_field(message, "fence", str, "")
    return token


def _run(message: Message) -> bytes:
    run: bytes = records.field(message, "run", bytes)
    if len(run) != RUN_BYTES:
        raise ExchangeError(f"a request of a run with an identity of {len(run)} bytes; it has {RUN_BYTES}.")
    return run


def _state_dict(arrays: ArrayRecord) -> dict[str, torch.Tensor]:
    try:
        return dict(arrays.to_torch_state_dict())
    except (RuntimeError, ValueError, TypeError, KeyError) as error:  # what NumPy's reader raises
        raise unfit(error) from error
