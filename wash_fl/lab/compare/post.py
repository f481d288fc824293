"""What members would have sent on a fleet: the messages are made as there, counted as there, and thrown away.

So the bytes of an experiment are those of the messages, by the counters of real runs
(:mod:`wash_fl.flower.traffic`, :mod:`wash_fl.stream.counting`), and not what a formula says.
"""

from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, Message
from numpy.typing import NDArray

from wash_fl.config import RunConfig
from wash_fl.core.layout import Layout
from wash_fl.core.packet import packet_size
from wash_fl.core.plane import plane_of
from wash_fl.flower import records
from wash_fl.flower.in_process import give_id, identify_process
from wash_fl.flower.traffic import Bytes, Traffic
from wash_fl.member.member import Member
from wash_fl.protocol.messages import Answer, ServerReply, ServerStatus, Status
from wash_fl.protocol.terms import Terms, run_identity
from wash_fl.stream import wire
from wash_fl.stream.counting import Counted

_NODE = 1
_TTL = 60.0
_ID = "0" * 64


class NoPost:
    """Counts nothing."""

    def offered(self, member: Member, exchange: int, packet: bytes) -> None:
        """Take note of an offer."""

    def delivered(self, member: Member, exchange: int, packet: bytes) -> None:
        """Take note of a delivery."""

    def models(
        self, member: int, number: int, up: Mapping[str, NDArray[Any]], down: Mapping[str, NDArray[Any]]
    ) -> None:
        """Take note of whole models."""

    def payload(self, member: int, number: int, layout: Layout, *, up: int = 0, down: int = 0) -> None:
        """Take note of packets with so many bytes each; 0 for none."""


class Post(NoPost):
    """Counts the bytes of a run.

    Parameters
    ----------
    config : RunConfig
        The run's options: the plane and the dtype count.
    """

    def __init__(self, config: RunConfig) -> None:
        training = config.training
        terms = Terms(
            run_name="comparison",
            seed=training.seed,
            members=training.members,
            rounds=training.rounds,
            local_steps=training.local_steps,
            exchange=config.exchange,
        )
        self._run = run_identity(terms)
        identify_process()
        self._traffic = Traffic(streams=None if plane_of(config.exchange).once_per_round else Counted())
        self._waiting: dict[int, bytes] = {}
        self._packets = {"up": 0, "down": 0}

    def offered(self, member: Member, exchange: int, packet: bytes) -> None:
        """Count an offer, and on the round plane the request that brought the delivery before it."""
        self._packets["up"] += len(packet)
        if self._traffic.streams is not None:
            messages = wire.offer_messages(exchange, member.applied, packet)
            self._traffic.streams.up(member.index, packet, sum(map(len, messages)))
            return
        fields = {
            "run": self._run,
            "round": exchange,
            "evaluate": False,
            "delivery": self._waiting.pop(member.index, b""),
            "seconds": 0.0,
        }
        sent = self._request(records.TRAIN, fields)
        given = Answer(
            Status.DONE, member.index, round=exchange, applied=member.applied, initial="0" * 64, offer=packet
        )
        self._traffic.round_trip(member.index, sent, records.answer(sent, given, metrics={"loss": 0.0}))

    def delivered(self, member: Member, exchange: int, packet: bytes) -> None:
        """Count a delivery after an exchange; on the round plane with the next request."""
        self._packets["down"] += len(packet)
        if self._traffic.streams is None:
            self._waiting[member.index] = packet
            return
        reply = ServerReply(ServerStatus.DELIVERED, exchange, packet)
        messages = wire.reply_messages(reply)
        self._traffic.streams.down(member.index, reply, sum(map(len, messages)))

    def models(
        self, member: int, number: int, up: Mapping[str, NDArray[Any]], down: Mapping[str, NDArray[Any]]
    ) -> None:
        """Count a request with a model, and its reply with one; either may be empty."""
        fields = {"run": self._run, "round": number}
        sent = self._request(records.TRAIN, fields, records.array_record(dict(down)))
        given = Answer(Status.DONE, member, round=number)
        reply = records.answer(sent, given, arrays=records.array_record(dict(up)), metrics={"loss": 0.0})
        for way, arrays, message in (("down", down, sent), ("up", up, reply)):
            size = sum(each.nbytes for each in arrays.values())
            self._count(way, member, size, size, message)

    def payload(self, member: int, number: int, layout: Layout, *, up: int = 0, down: int = 0) -> None:
        """Count a request with a packet, and its reply with one, of so many bytes in their frames."""
        packets = {
            "up": packet_size(layout, up) if up else 0,
            "down": packet_size(layout, down) if down else 0,
        }
        sent = self._request(
            records.TRAIN, {"run": self._run, "round": number, "delivery": bytes(packets["down"])}
        )
        answer = Answer(Status.DONE, member, round=number, offer=bytes(packets["up"]))
        reply = records.answer(sent, answer, metrics={"loss": 0.0})
        self._count("down", member, down, packets["down"], sent)
        self._count("up", member, up, packets["up"], reply)

    def _count(self, way: str, member: int, values: int, packet: int, message: Message) -> None:
        side = self._traffic.up if way == "up" else self._traffic.down
        counted = side.setdefault(member, Bytes())
        counted.values += values
        counted.messages += records.message_bytes(message)
        self._packets[way] += packet

    def finish(self) -> None:
        """Count the last deliveries, which on a fleet come with the request for the whole model."""
        for member, packet in sorted(self._waiting.items()):
            sent = self._request(records.COLLECT, {"run": self._run, "delivery": packet})
            down = self._traffic.down.setdefault(member, Bytes())
            down.values += records.value_bytes(sent, "delivery")
            down.messages += records.message_bytes(sent)
        self._waiting.clear()

    def _request(self, kind: str, fields: dict[str, Any], arrays: ArrayRecord | None = None) -> Message:
        message = records.request(_NODE, kind, fields, _TTL, arrays)
        give_id(message, _ID)
        return message

    def per_member(self, members: int) -> dict[str, float]:
        """Return the mean bytes of a member: ``up_values``, ``up_packets``, ``up_messages``, the same down.

        Values are what the method itself has to move, packets these in their frames (arrays of whole models
        have none), messages all that they travel in; the initial model and the final one, the same for all
        methods, are not among them.
        """
        total = self._traffic.total() | {f"{way}_packets": size for way, size in self._packets.items()}
        return {
            f"{way}_{kind}": total[f"{way}_{kind}"] / members
            for way in ("up", "down")
            for kind in ("values", "packets", "messages")
        }
