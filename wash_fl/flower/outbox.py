"""A coordinator's requests as Flower messages, and what comes back as its events."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid

from wash_fl.core.identity import weights_sha256
from wash_fl.flower import records
from wash_fl.flower.arrays import Spec
from wash_fl.flower.collection import model_of
from wash_fl.flower.failures import pull, understand
from wash_fl.flower.patience import patiently
from wash_fl.flower.records import Arrays
from wash_fl.flower.traffic import Traffic
from wash_fl.flower.transport import transport_of
from wash_fl.protocol.commands import Ask, Remind
from wash_fl.protocol.events import Replied
from wash_fl.protocol.messages import SILENT, Answer, Failure, Kind, Request, Status
from wash_fl.protocol.requests import REMINDER_TTL
from wash_fl.sources import own_sources

logger = logging.getLogger("flwr.wash_fl")

MESSAGE_TYPES: Final = {
    Kind.JOIN: records.JOIN,
    Kind.TRAIN: records.TRAIN,
    Kind.COLLECT: records.COLLECT,
    Kind.DONATE: records.COLLECT,
    Kind.RECALIBRATE: records.RECALIBRATE,
    Kind.LEAVE: records.LEAVE,
}


@dataclass(frozen=True)
class Fields:
    """What requests say besides what the coordinator decides.

    Attributes
    ----------
    run : bytes
        Identity of the run.
    join : mapping of str to str
        The terms, the layout and the classes, as fields of a request to join.
    seconds : float
        Seconds of training per round; 0 if it is measured in steps.
    train : callable
        ``train(member)`` returns what a request to train says about the member's stream.
    weights : callable
        ``weights(name)`` returns the weights that a request's start names.
    """

    run: bytes
    join: Mapping[str, str]
    seconds: float
    train: Callable[[int], dict[str, Any]]
    weights: Callable[[str], Arrays]


@dataclass(frozen=True, eq=False)
class _Sent:
    """A request, and the message that it is; whether that only names the weights to start from."""

    request: Request
    message: Message
    named: bool = False


class Outbox:
    """Sends requests and takes replies.

    The run's initial weights are named by their hash at first, and sent only to a node that cannot make them
    itself: to a coordinator the two messages are one request.

    Parameters
    ----------
    grid : Grid
        Flower's way to the nodes.
    fields : Fields
        What requests say besides.
    model : Spec
        What a member's whole model looks like.
    traffic : Traffic
        Where bytes are counted.

    Attributes
    ----------
    model : dict of str to ndarray
        The whole model that came with the last reply; empty if none did.
    statistics : ArrayRecord or None
        The arrays of the last reply that brought BatchNorm statistics.
    """

    def __init__(self, grid: Grid, fields: Fields, model: Spec, traffic: Traffic) -> None:
        self.model: Arrays = {}
        self.statistics: dict[int, ArrayRecord | None] = {}
        self._grid = grid
        self._fields = fields
        self._expected = model
        self._traffic = traffic
        self._traffic.transport = traffic.transport or transport_of(grid)
        self._sent: dict[str, _Sent] = {}
        self._donated: tuple[str, Arrays] | None = None

    def send(self, asked: Collection[Ask]) -> list[Replied]:
        """Send requests; return what is to be told of those that Flower does not take."""
        loaded: dict[str, ArrayRecord] = {}
        return self._push([self._message(each, loaded) for each in asked])

    def remind(self, command: Remind) -> None:
        """Send a node a reminder."""
        request = command.request
        reminder = records.request(request.node, records.REMIND, {}, REMINDER_TTL)
        if any(patiently(partial(self._grid.push_messages, [reminder]))) and request.member >= 0:
            self._traffic.request(request.member, reminder)

    def replies(self) -> Iterator[Replied]:
        """Yield what has come back, one after the other; :attr:`model` is that of the last one yielded."""
        counted: set[str] = set()
        unable: list[_Sent] = []
        for reply in pull(self._grid, list(self._sent)):
            # A failed node's reply says only which message it is about.
            message_id = reply.metadata.reply_to_message_id
            sent = self._sent.get(message_id)
            if sent is not None:
                answer = understand(reply)
                self._count(sent, reply, answer, again=message_id in counted)
                counted.add(message_id)
                if sent.named and isinstance(answer, Answer) and answer.status is Status.NOT_JOINED:
                    unable.append(sent)
                    self._forget(sent.request.number)
                    continue
                yield self._event(sent.request, reply, answer)
                self.model = {}
        yield from self._send_weights(unable)

    def keep(self, outstanding: Collection[int]) -> None:
        """Forget what was sent but for these requests."""
        self._sent = {key: each for key, each in self._sent.items() if each.request.number in outstanding}
        self._donated = None

    def _push(self, sent: Collection[_Sent]) -> list[Replied]:
        """Push messages; return what is to be told of those that Flower does not take."""
        if not sent:
            return []
        # A list, for a deployment's grid iterates twice.
        ids = list(patiently(partial(self._grid.push_messages, [each.message for each in sent])))
        failed = []
        for message_id, each in zip(ids, sent, strict=False):
            if message_id:
                self._sent[message_id] = each
            else:
                failed.append(Replied(each.request.number, SILENT))
        return failed

    def _send_weights(self, unable: Collection[_Sent]) -> list[Replied]:
        """Send the weights that messages only named; return what is to be told as :meth:`_push` does."""
        loaded: dict[str, ArrayRecord] = {}
        for each in unable:
            logger.info("%s does not make the initial weights itself: they are sent", each.request.who)
        return self._push(
            [
                _Sent(each.request, self._whole(each.request, each.message.metadata.ttl, loaded))
                for each in unable
            ]
        )

    def _message(self, ask: Ask, loaded: dict[str, ArrayRecord]) -> _Sent:
        request = ask.request
        if ask.again:
            before = next(each for each in self._sent.values() if each.request.number == request.number)
            kind = MESSAGE_TYPES[request.kind]
            message = Message(before.message.content, request.node, kind, ttl=ask.left)
            return _Sent(request, message, before.named)
        start = request.start
        if request.kind is Kind.JOIN and start is not None and not start.incarnation:
            fields = self._fields_of(request) | {"initial": start.weights}
            return _Sent(request, records.request(request.node, records.JOIN, fields, ask.left), named=True)
        return _Sent(request, self._whole(request, ask.left, loaded))

    def _whole(self, request: Request, ttl: float, loaded: dict[str, ArrayRecord]) -> Message:
        """Return a request as a message, with its weights; ``loaded`` keeps them for the next."""
        arrays = None
        if request.start is not None:
            name = request.start.weights
            if name not in loaded:
                loaded[name] = records.array_record(self._weights(name))
            arrays = loaded[name]
        return records.request(
            request.node, MESSAGE_TYPES[request.kind], self._fields_of(request), ttl, arrays
        )

    def _forget(self, number: int) -> None:
        """Expect no answer any more to the messages that a request was so far."""
        self._sent = {key: each for key, each in self._sent.items() if each.request.number != number}

    def _weights(self, name: str) -> Arrays:
        if self._donated is not None and self._donated[0] == name:
            return self._donated[1]
        return self._fields.weights(name)

    def _fields_of(self, request: Request) -> dict[str, Any]:
        fields = self._fields
        told = {"server": request.server, "fence": request.fence}
        fenced = {name: value for name, value in told.items() if value}
        if request.kind is Kind.JOIN:
            start = request.start
            anchor = {"anchor": request.delivery} if request.delivery else {}
            return {
                **fields.join,
                **fenced,
                "software": str(own_sources()),
                **anchor,
                "exchange": 0 if start is None else start.exchange,
                "incarnation": 0 if start is None else start.incarnation,
            }
        if request.kind is Kind.RECALIBRATE:
            return {}
        if request.kind is Kind.LEAVE:
            return {"run": fields.run, **fenced}
        found: dict[str, Any] = {"run": fields.run, "delivery": request.delivery, **fenced}
        if request.kind is Kind.TRAIN:
            found |= {"round": request.round, "evaluate": request.evaluate, "seconds": fields.seconds}
            found |= {"exchange": request.exchange} if request.exchange else fields.train(request.member)
        return found

    def _event(self, request: Request, reply: Message, answer: Answer | Failure) -> Replied:
        done = isinstance(answer, Answer) and answer.status is Status.DONE
        name = ""
        if done and request.kind in {Kind.COLLECT, Kind.DONATE}:
            self.model = model_of(request.member, reply, self._expected) or {}
            if self.model and request.kind is Kind.DONATE:
                name = weights_sha256(self.model)
                self._donated = name, self.model
            elif self.model:
                name = "collected"
        elif done and request.kind is Kind.RECALIBRATE:
            self.statistics[request.member] = reply.content.array_records.get(records.ARRAYS)
        found = reply.content.metric_records.get(records.METRICS, MetricRecord()) if done else {}
        metrics = {key: value for key, value in found.items() if isinstance(value, int | float)}
        return Replied(request.number, answer, name, metrics)

    def _count(self, sent: _Sent, reply: Message, answer: Answer | Failure, *, again: bool) -> None:
        """Count the bytes of a request that was answered, and of its reply."""
        request, traffic = sent.request, self._traffic
        done = isinstance(answer, Answer) and answer.status is Status.DONE
        if request.kind is Kind.TRAIN:
            traffic.round_trip(request.member, sent.message, reply, again=again)
        elif request.kind in {Kind.COLLECT, Kind.DONATE}:
            if done:
                traffic.model_up(request.member, sent.message, reply)
        elif request.kind in {Kind.RECALIBRATE, Kind.LEAVE}:
            if done:
                traffic.asked(request.member, sent.message, reply)
        elif request.kind is Kind.JOIN and isinstance(answer, Answer) and answer.status is not Status.REFUSED:
            traffic.asked(answer.member, sent.message, reply)
