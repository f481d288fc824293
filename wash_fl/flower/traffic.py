"""Bytes that travelled, counted from the messages that were really sent."""

from dataclasses import dataclass, field

from flwr.app import Message

from wash_fl.flower import records
from wash_fl.flower.transport import Size, Transport
from wash_fl.stream.counting import Counted


@dataclass
class Bytes:
    """One member's bytes in one direction.

    Attributes
    ----------
    values : int
        The packets' values: what the method itself needs to move.
    messages : int
        The Flower messages that carried them, as serialized: packets, names, metadata, metrics.
    models : int
        Whole models: the initial weights, the collection at the end, BatchNorm's re-estimation.
    """

    values: int = 0
    messages: int = 0
    models: int = 0


@dataclass
class Traffic:
    """Bytes of a run, by member; ``up`` is from the device to the server."""

    up: dict[int, Bytes] = field(default_factory=dict)
    down: dict[int, Bytes] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    """What :meth:`total` was when an earlier server process of the same run ended."""
    streams: Counted | None = None
    """What the stream plane's connections carried."""
    transport: Transport | None = None
    """What Flower itself adds on a network; None where there is none."""
    _rows: dict[int, list[int]] = field(default_factory=dict)

    def round_trip(self, member: int, sent: Message, reply: Message, *, again: bool = False) -> None:
        """Count a round's request and its reply; ``again`` counts a further reply to the same request."""
        size = Size.of(reply)
        if not again:
            self._answered(member, sent, size)
        up = self.up.setdefault(member, Bytes())
        up.messages += size.bytes
        up.values += records.value_bytes(reply, "offer")

    def request(self, member: int, sent: Message) -> None:
        """Count a request, with the slice or the whole model that it carries if it carries one."""
        self._request(member, sent, Size.of(sent))

    def asked(self, member: int, sent: Message, reply: Message) -> None:
        """Count a request that is no round's, and its reply, which carries no model."""
        size = Size.of(reply)
        self._answered(member, sent, size)
        self.up.setdefault(member, Bytes()).messages += size.bytes

    def model_up(self, member: int, sent: Message, reply: Message) -> None:
        """Count the collection of a member: the request, with its last delivery, and its model."""
        size = Size.of(reply)
        self._answered(member, sent, size)
        self.up.setdefault(member, Bytes()).models += size.bytes

    def _answered(self, member: int, sent: Message, reply: Size) -> None:
        """Count a request, and what Flower adds to it and to its reply."""
        size = Size.of(sent)
        self._request(member, sent, size)
        if self.transport is not None:
            self.transport.answered(member, sent, size, reply)

    def _request(self, member: int, sent: Message, size: Size) -> None:
        down = self.down.setdefault(member, Bytes())
        if records.ARRAYS in sent.content.array_records:
            down.models += size.bytes
        else:
            down.messages += size.bytes
            down.values += records.value_bytes(sent, "delivery")

    def row(self) -> dict[str, list[int]]:
        """Return each member's bytes since the last time: values and the rest of messages up, then down.

        Whole models are left out.
        """
        now = {
            member: [count for way in (self.up, self.down) for count in _split(way.get(member, Bytes()))]
            for member in sorted(self.up.keys() | self.down.keys())
        }
        before, self._rows = self._rows, now
        return {
            str(member): [count - old for count, old in zip(counts, before.get(member, [0] * 4), strict=True)]
            for member, counts in now.items()
        }

    def total(self) -> dict[str, int]:
        """Return the sums over all members, by direction and kind.

        On the stream plane the streams' values and messages are among them, and ``framing`` is what their
        connections carried besides, where the kernel tells. On a network there are ``down_app``, the app, and
        ``transport``, what Flower adds around messages and between them.
        """
        sums = {
            f"{direction}_{kind}": sum(getattr(each, kind) for each in counted.values())
            for direction, counted in (("up", self.up), ("down", self.down))
            for kind in ("values", "messages", "models")
        }
        if self.transport is not None:
            sums |= self.transport.total()
        if self.streams is not None:
            carried = self.streams.total()
            for way in ("up", "down"):
                sums[f"{way}_values"] += carried[f"{way}_payload"]
                sums[f"{way}_messages"] += carried[f"{way}_payload"] + carried[f"{way}_protocol"]
                if f"{way}_framing" in carried:
                    sums[f"{way}_framing"] = carried[f"{way}_framing"]
        return {name: count + self.before.get(name, 0) for name, count in sums.items()}


def _split(counted: Bytes) -> tuple[int, int]:
    return counted.values, counted.messages - counted.values
