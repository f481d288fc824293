"""Faults of the network: a Grid around a Grid, real or in-process, that mistreats the messages of a plan.

Which member is on a node is learned from the answers that pass through, so a plan names members. Delays are
counted in rounds, by the ``train`` requests that pass: what is delayed by two in round 3 goes on its way
when the first request of round 5 does. What is still held when the members are collected goes then.
"""

import hashlib
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from wash_fl.faults.fault import Fault, Kind, Way
from wash_fl.faults.plan import FaultPlan
from wash_fl.faults.points import from_environment
from wash_fl.flower import records
from wash_fl.flower.in_process import give_id, give_reply_to

logger = logging.getLogger("flwr.wash_fl")

_OF: Final = {
    records.TRAIN: "train",
    records.JOIN: "join",
    records.COLLECT: "collect",
    records.RECALIBRATE: "recalibrate",
    records.LEAVE: "leave",
}
_PACKET: Final = {Way.REQUEST: "delivery", Way.REPLY: "offer"}


def with_faults(grid: Grid, environment: Mapping[str, str] = os.environ) -> Grid:
    """Return the grid, mistreated as ``WASH_FL_FAULTS`` says; as it is if that is not set."""
    plan = from_environment(environment)
    if plan is None:
        return grid
    logger.warning("faults are injected on purpose: %s", plan)
    return FaultyGrid(grid, plan)


@dataclass(frozen=True)
class _Errand:
    """A request as its sender knows it."""

    given: str
    node: int
    of: str
    exchange: int | None


@dataclass(frozen=True, eq=False)
class _Held:
    """A message on its way: until the round in which it goes on, or until another overtakes it."""

    message: Message
    errand: _Errand
    due: float
    behind: bool = False


class FaultyGrid(Grid):
    """Drops, delays, repeats, reorders and corrupts messages by member and exchange.

    Parameters
    ----------
    grid : Grid
        What carries the messages.
    plan : FaultPlan
        What happens to which of them; kills in it are for :mod:`wash_fl.faults.points`.
    """

    def __init__(self, grid: Grid, plan: FaultPlan) -> None:
        self.inner = grid
        self.plan = plan
        self._ids = itertools.count(1)
        self._members: dict[int, int] = {}
        self._out: dict[str, _Errand] = {}
        self._requests: list[_Held] = []
        self._replies: list[_Held] = []
        self._round = 0

    def set_run(self, run: Run) -> None:
        """Take note of the run."""
        self.inner.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self.inner.run

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return self.inner.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return all nodes."""
        return self.inner.get_nodes()

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message."""
        return self.inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, and those held before whose time has come; return the ids of those given.

        A message that is lost has an id, too: one that is never answered.
        """
        given = [(message, self._errand(message)) for message in messages]
        self._round = max([self._round, *(errand.exchange or 0 for _, errand in given)])
        # The last requests of a run wait for nothing: what is still held goes before them.
        now = math.inf if any(errand.of == "collect" for _, errand in given) else self._round
        nodes = {errand.node for _, errand in given}
        before = _taken(self._requests, lambda held: held.due <= now)
        behind = _taken(self._requests, lambda held: held.behind and held.errand.node in nodes)
        out = [(held.message, held.errand) for held in before]
        for message, errand in given:
            out += [(each, errand) for each in self._request(message, errand)]
        out += [(held.message, held.errand) for held in behind]
        pushed = list(self.inner.push_messages([message for message, _ in out])) if out else []
        for message_id, (_, errand) in zip(pushed, out, strict=False):
            if message_id:  # Flower returns none for a message that it could not take
                self._out[message_id] = errand
        for message, errand in given:
            give_id(message, errand.given)
        return [errand.given for _, errand in given]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that came, and those held before whose time has come."""
        wanted = set(message_ids)
        asked = [message_id for message_id, errand in self._out.items() if errand.given in wanted]
        passed: list[Message] = []
        for reply in self.inner.pull_messages(asked) if asked else ():
            errand = self._out.pop(reply.metadata.reply_to_message_id, None)
            if errand is not None:
                give_reply_to(reply, errand.given)
                self._learn(errand.node, reply)
                passed += self._reply(reply, errand)
        # One behind which nothing comes any more waits no longer: there is nothing to overtake it.
        overtaken = bool(passed) or not self._out
        late = _taken(self._replies, lambda held: held.due <= self._round or (held.behind and overtaken))
        return passed + [held.message for held in late if held.errand.given in wanted]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and wait for their replies, as Flower's own grids do."""
        waiting = set(self.push_messages(messages))
        end = math.inf if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting:
            came = list(self.pull_messages(waiting))
            replies += came
            waiting -= {reply.metadata.reply_to_message_id for reply in came}
            if time.monotonic() >= end:
                break
            if waiting:
                time.sleep(0.05)
        return replies

    def _errand(self, message: Message) -> _Errand:
        of = _OF.get(message.metadata.message_type, "")
        number = _field(message, "round") if of == "train" else None
        exchange = number if isinstance(number, int) else None
        return _Errand(f"faulty-{next(self._ids)}", message.metadata.dst_node_id, of, exchange)

    def _request(self, message: Message, errand: _Errand) -> list[Message]:
        """Return what goes out now in place of a request."""
        fault = self._fault(Way.REQUEST, message, errand)
        if fault is None:
            return [message]
        if fault.kind is Kind.DUPLICATE:
            return [message, _again(message, message.content)]
        if fault.kind is Kind.CORRUPT:
            content = RecordDict(dict(message.content))
            content[records.RECORD] = ConfigRecord(dict(message.content.config_records[records.RECORD]))
            _flip(content, _PACKET[Way.REQUEST], str(fault))
            return [_again(message, content)]
        self._hold(self._requests, fault, message, errand)
        return []

    def _reply(self, reply: Message, errand: _Errand) -> list[Message]:
        """Return what comes in now in place of a reply."""
        fault = None if reply.has_error() else self._fault(Way.REPLY, reply, errand)
        if fault is None:
            return [reply]
        if fault.kind is Kind.DUPLICATE:
            return [reply, reply]
        if fault.kind is Kind.CORRUPT:
            _flip(reply.content, _PACKET[Way.REPLY], str(fault))
            return [reply]
        self._hold(self._replies, fault, reply, errand)
        return []

    def _hold(self, queue: list[_Held], fault: Fault, message: Message, errand: _Errand) -> None:
        number = errand.exchange or self._round
        if fault.kind is Kind.DELAY:
            queue.append(_Held(message, errand, number + fault.by))
        elif fault.kind is Kind.REORDER and queue is self._replies:
            queue.append(_Held(message, errand, number + 1, behind=True))
        elif fault.kind is Kind.REORDER:
            queue.append(_Held(message, errand, math.inf, behind=True))

    def _fault(self, way: Way, message: Message, errand: _Errand) -> Fault | None:
        member = self._members.get(errand.node)
        if member is None:
            return None
        whole = isinstance(_field(message, _PACKET[way]), bytes) and _field(message, _PACKET[way])
        without = () if whole else (Kind.CORRUPT,)
        fault = self.plan.take(way, member=member, exchange=errand.exchange, of=errand.of, without=without)
        if fault is not None:
            logger.warning("injected: %s (exchange %s)", fault, errand.exchange)
        return fault

    def _learn(self, node: int, reply: Message) -> None:
        member = _field(reply, "member")
        if node not in self._members and isinstance(member, int):
            self._members[node] = member


def _taken(held: list[_Held], ready: Callable[[_Held], bool]) -> list[_Held]:
    """Take out what is ready."""
    found = [each for each in held if ready(each)]
    held[:] = [each for each in held if each not in found]
    return found


def _field(message: Message, name: str) -> object:
    record = message.content.config_records.get(records.RECORD) if message.has_content() else None
    return None if record is None else record.get(name)


def _again(message: Message, content: RecordDict) -> Message:
    """Return a request of its own with the same destination: Flower takes no message twice."""
    about = message.metadata
    return Message(content, about.dst_node_id, about.message_type, ttl=about.ttl, group_id=about.group_id)


def _flip(content: RecordDict, name: str, which: str) -> None:
    """Flip one bit of a packet; which one is a function of the fault."""
    record = content.config_records[records.RECORD]
    packet = bytearray(record[name])  # type: ignore[arg-type]
    digest = hashlib.blake2b(which.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "little") % (8 * len(packet))
    packet[place // 8] ^= 1 << place % 8
    record[name] = bytes(packet)
