"""Tests of the server's door: who is let in, and what becomes of those who say what nobody says."""

import dataclasses
import socket
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from wash_fl.config import ExchangeConfig
from wash_fl.core.layout import layout_of
from wash_fl.core.packet import Direction, Slice, decode, encode
from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.protocol.coordinator import Coordinator
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Enrolment, Standing
from wash_fl.protocol.options import ServerOptions
from wash_fl.protocol.terms import Terms
from wash_fl.stream.guard import Guard
from wash_fl.stream.place import Place
from wash_fl.stream.service import Service
from wash_fl.stream.wire import PART, PATH

INITIAL = "a" * 64
CONFIG = ExchangeConfig(p=0.5, mix="shuffle", schedule="constant", exchange_plane="stream")
MEMBERS = 3


class Server:
    """A hub with its service, and callers that may say anything."""

    def __init__(self, size=40, deadline=0.3):
        self.layout = layout_of([("weight", (size,))])
        self.journal = Journal.in_memory()
        options = ServerOptions(initial=INITIAL, exchange_deadline=deadline, start_timeout=deadline)
        terms = Terms(run_name="t", seed=1, members=MEMBERS, rounds=100, local_steps=1, exchange=CONFIG)
        self.coordinator = Coordinator(terms, self.layout, self.journal, options, now=time.monotonic())
        self.run = self.coordinator.run
        self.draw = self.coordinator.state.packets.draw
        self.escrow, self.roster = self.coordinator.state.escrow, self.coordinator.state.membership
        for member in range(MEMBERS):
            self.roster.enrol(member, Enrolment(INITIAL))
        guard = Guard(self.coordinator, time.monotonic)
        self.service = Service(guard, Place(), members=MEMBERS, deadline=deadline)
        self.begin(range(MEMBERS))

    def begin(self, members):
        self.coordinator.exchanges.begin(1, members, time.monotonic())

    def token(self, member):
        return self.coordinator.exchanges.token(member)

    def hello(self, member=0, /, **changes):
        return wire.MemberMessage(
            hello=wire.Hello(
                **{
                    "version": 1,
                    "run": self.run,
                    "layout": self.layout.fingerprint,
                    "member": member,
                    "token": self.token(member),
                    "round": 1,
                    "initial": INITIAL,
                    **changes,
                }
            )
        ).SerializeToString()

    def packet(self, member, number=1, /, value=1.0, **changes):
        count = self.draw.count(number)
        values = np.full((1, count), value, dtype=np.float32) + np.arange(count, dtype=np.float32)
        slice_ = Slice(Direction.OFFER, self.run, self.layout, number, member, values)
        return encode(dataclasses.replace(slice_, **changes))

    def offer(self, member, exchange=1, applied=0, **changes):
        packet = self.packet(member, exchange, **changes)
        return wire.MemberMessage(
            offer=wire.Offer(exchange=exchange, applied=applied, packet=packet)
        ).SerializeToString()

    def say(self, *messages):
        """Say all this in a call of its own, and return the answers."""
        with grpc.insecure_channel(self.service.address) as channel:
            call = channel.stream_stream(PATH)(iter(messages), timeout=10)
            return [wire.ServerMessage.FromString(answer) for answer in call]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with made.service:
        yield made


def statuses(answers):
    return [wire.Status.Name(each.status).removeprefix("STATUS_") for each in answers]


def test_a_member_is_welcome_and_alone_if_nobody_else_offers(server):
    answers = server.say(server.hello(), server.offer(0))
    assert statuses(answers) == ["WELCOME", "ALONE"]
    assert [each.settled for each in answers] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "version 2"),
        ({"run": bytes(16)}, "another run"),
        ({"layout": bytes(32)}, "model is another"),
        ({"token": b""}, "token"),
        ({"token": bytes(32)}, "token"),
        ({"member": 1}, "token"),
        ({"member": 77}, "token"),
        ({"applied": 1}, "older copy"),
        ({"round": 2}, "older copy"),  # asked for it by a server whose journal this one does not have
    ],
)
def test_who_is_not_let_in(server, caplog, changes, reason):
    token = server.token(0)
    answers = server.say(server.hello(0, **({"token": token} | changes)), server.offer(0))
    assert statuses(answers) == ["DENIED"]
    assert reason in answers[0].reason
    assert server.escrow.settled == 0


@pytest.mark.parametrize("wrong", [{"version": 2}, {"run": bytes(16)}, {"layout": bytes(32)}, {"applied": 1}])
def test_who_proves_nothing_is_told_nothing(server, wrong):
    right = server.say(server.hello(0, token=bytes(32)))
    assert server.say(server.hello(0, **({"token": bytes(32)} | wrong))) == right


def test_a_token_is_of_one_member_and_run(server):
    other = Server()
    tokens = {server.token(member) for member in range(MEMBERS)}
    assert len(tokens) == MEMBERS and {len(token) for token in tokens} == {32}
    assert tokens.isdisjoint({other.token(member) for member in range(MEMBERS)})


def test_a_member_that_is_not_of_the_run_any_more(server):
    server.roster.drop(1, Standing.SET_ASIDE, "far away")
    assert statuses(server.say(server.hello(1))) == ["DENIED"]


def test_a_member_of_other_weights_is_to_start_anew(server):
    answers = server.say(server.hello(0, initial="b" * 64))
    assert statuses(answers) == ["ANEW"] and "weights" in answers[0].reason


@pytest.mark.parametrize(
    "messages",
    [
        [b"\xff\xff\xff"],
        [b""],
        [wire.MemberMessage(farewell=wire.Farewell()).SerializeToString()],
        [wire.MemberMessage(offer=wire.Offer(exchange=1)).SerializeToString()],
    ],
)
def test_a_call_that_does_not_begin_with_a_hello_is_ended(server, caplog, messages):
    assert statuses(server.say(*messages)) == ["DENIED"]
    assert "is ended" in caplog.text


@pytest.mark.parametrize("second", ["hello", "nothing", "garbage"])
def test_a_second_message_that_nobody_says_ends_the_call(server, second):
    said = {"hello": server.hello(), "nothing": b"", "garbage": b"\x0a\xff"}[second]
    assert statuses(server.say(server.hello(), said, server.offer(0))) == ["WELCOME", "DENIED"]
    assert statuses(server.say(server.hello(), server.offer(0))) == ["WELCOME", "ALONE"]


@pytest.mark.parametrize(
    "changes", [{"member": 1}, {"run": bytes(16)}, {"direction": Direction.DELIVERY}, {"exchange": 2}]
)
def test_an_offer_that_is_not_what_it_must_be_is_refused_and_the_call_goes_on(server, changes):
    packet = server.packet(0, **changes)
    bad = wire.MemberMessage(offer=wire.Offer(exchange=1, packet=packet)).SerializeToString()
    answers = server.say(server.hello(), bad, server.offer(0))
    assert statuses(answers) == ["WELCOME", "REFUSED", "ALONE"]


def test_an_offer_for_another_exchange(server):
    answers = server.say(server.hello(), server.offer(0), server.offer(0, 1), server.offer(0, 4))
    assert statuses(answers) == ["WELCOME", "ALONE", "LATE", "EARLY"]
    assert answers[-1].settled == 1


def test_a_packet_longer_than_any_of_the_run_is_not_kept(server, caplog):
    parts = [
        wire.MemberMessage(offer=wire.Offer(exchange=1, packet=bytes(PART), more=True)).SerializeToString()
    ] * 3
    assert statuses(server.say(server.hello(), *parts)) == ["WELCOME", "DENIED"]
    assert "none has more than" in caplog.text


def test_a_message_beyond_the_limit_ends_the_call(server):
    big = wire.MemberMessage(offer=wire.Offer(exchange=1, packet=bytes(2 * PART))).SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        server.say(server.hello(), big)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert statuses(server.say(server.hello(), server.offer(0))) == ["WELCOME", "ALONE"]


def test_large_packets_travel_in_parts_both_ways():
    server = Server(size=1_200_000, deadline=20.0)
    server.begin([0, 1])
    import threading

    found = {}

    def member(index):
        packet = server.packet(index, value=float(index))
        parts = [packet[begin : begin + PART] for begin in range(0, len(packet), PART)]
        messages = [
            wire.MemberMessage(
                offer=wire.Offer(exchange=int(number == 0), packet=part, more=number < len(parts) - 1)
            ).SerializeToString()
            for number, part in enumerate(parts)
        ]
        assert len(messages) > 1
        found[index] = server.say(server.hello(index), *messages)

    with server.service:
        threads = [threading.Thread(target=member, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    for index in (0, 1):
        answers = found[index]
        assert statuses(answers[:2]) == ["WELCOME", "DELIVERED"] and answers[1].more and not answers[-1].more
        delivery = decode(
            b"".join(each.packet for each in answers[1:]),
            direction=Direction.DELIVERY,
            run=server.run,
            layout=server.layout,
            member=index,
            count=server.draw.count,
        )
        assert delivery.values[0, 0] == 1 - index
    total = server.service.counted.total()
    assert total["up_payload"] == total["down_payload"] == 2 * 4 * server.draw.count(1)


def test_a_newer_call_of_a_member_takes_the_place_of_the_older(server):
    with grpc.insecure_channel(server.service.address) as channel:
        import queue

        out = queue.SimpleQueue()
        call = channel.stream_stream(PATH)(iter(out.get, None), timeout=10)
        out.put(server.hello())
        assert statuses([wire.ServerMessage.FromString(next(call))]) == ["WELCOME"]
        assert statuses(server.say(server.hello(), server.offer(0))) == ["WELCOME", "ALONE"]
        # At once, not when the caller has had enough: it would wait for the rest of the round.
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        assert ended.value.code() is grpc.StatusCode.ABORTED
        out.put(None)


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the kernel does not count")
def test_what_is_counted_does_not_grow_with_every_connection(server):
    counted = server.service.counted
    seen = []
    for _ in range(20):
        assert statuses(server.say(server.hello(0, token=bytes(32)))) == ["DENIED"]
        counted.sample()
        seen.append(counted.total()["up_framing"])
    assert seen == sorted(seen) and seen[-1] > seen[0] > 0
    assert len(counted._messages) < 5 and len(counted._framing) < 5
