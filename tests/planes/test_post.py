"""Requests that are out: who is busy, what came back, what nobody will answer any more."""

from collections.abc import Callable, Iterable

import pytest
from flwr.app import Error, Message, RecordDict

from wash_fl.planes import records
from wash_fl.planes.asking import GONE, KILLED
from wash_fl.planes.clock import Pause
from wash_fl.planes.in_process import identify_process
from wash_fl.planes.post import LATE, MOST_KILLS, REMINDER_TTL, Post

from fleet import FastClock


class Wire:
    """A grid whose replies are put in by hand."""

    def __init__(self) -> None:
        self.pushed: list[Message] = []
        self.ready: list[Message] = []
        self.refuses: set[int] = set()
        self.offline: set[int] = set()

    def get_node_ids(self) -> list[int]:
        return [node for node in (10, 20, 30) if node not in self.offline]

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:
        ids: list[str | None] = []
        for message in messages:
            self.pushed.append(message)
            taken = message.metadata.dst_node_id not in self.refuses
            message.metadata.__dict__["_message_id"] = name = f"m{len(self.pushed)}"
            ids.append(name if taken else None)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = set(message_ids)
        found = [each for each in self.ready if each.metadata.reply_to_message_id in wanted]
        self.ready = [each for each in self.ready if each not in found]
        return found

    def answer(self, number: int) -> None:
        self.ready.append(Message(RecordDict(), reply_to=self.pushed[number]))

    def fail(self, number: int, code: int) -> None:
        self.ready.append(Message(Error(code, "planted"), reply_to=self.pushed[number]))


@pytest.fixture
def wire() -> Wire:
    identify_process()
    return Wire()


def request(node: int, ttl: float = 100.0) -> Message:
    return Message(RecordDict(), node, "train", ttl=ttl)


def test_a_node_is_busy_from_the_request_to_the_reply(wire: Wire) -> None:
    post = Post(wire, FastClock())  # type: ignore[arg-type]
    post.send([(0, 10, request(10)), (1, 20, request(20))], 3)
    assert post.busy(10) and post.busy(20) and not post.busy(30)
    assert [errand.member for errand in post.waiting("train", 3)] == [0, 1]
    assert post.waiting("train", 2) == [] == post.waiting("query.wash_join")
    wire.answer(1)
    ((errand, reply),) = post.replies()
    assert (errand.member, errand.node, errand.round) == (1, 20, 3)
    assert reply.metadata.reply_to_message_id == errand.request.metadata.message_id
    assert post.busy(10) and not post.busy(20)


def test_a_reply_that_comes_twice_is_handed_out_twice_with_the_same_errand(wire: Wire) -> None:
    post = Post(wire, FastClock())  # type: ignore[arg-type]
    post.send([(0, 10, request(10))], 1)
    wire.answer(0)
    wire.answer(0)
    first, second = post.replies()
    assert first[0] is second[0]


def test_a_request_expires_with_its_ttl_and_its_node_is_free_again(wire: Wire) -> None:
    clock = FastClock()
    post = Post(wire, clock)  # type: ignore[arg-type]
    post.send([(0, 10, request(10, ttl=5.0)), (1, 20, request(20, ttl=50.0))], 1)
    clock.sleep(4.9)
    assert post.expired() == []
    clock.sleep(0.2)
    assert [errand.member for errand in post.expired()] == [0]
    assert not post.busy(10) and post.busy(20)
    wire.answer(0)
    assert list(post.replies()) == []


def test_a_request_that_flower_does_not_take_makes_nobody_busy(wire: Wire) -> None:
    wire.refuses.add(20)
    post = Post(wire, FastClock())  # type: ignore[arg-type]
    sent = post.send([(0, 10, request(10)), (1, 20, request(20))], 1)
    assert [errand.member for errand in sent] == [0]
    assert not post.busy(20)


def test_what_a_killed_clientapp_leaves_is_asked_again_a_few_times(wire: Wire) -> None:
    extra: list[tuple[int, Message]] = []
    post = Post(wire, FastClock(), extra=lambda *sent: extra.append(sent))  # type: ignore[arg-type]
    post.send([(4, 10, request(10))], 1)
    for kills in range(1, MOST_KILLS):
        wire.fail(kills - 1, KILLED)
        assert list(post.replies()) == []
        assert post.busy(10) and post.waiting("train", 1)
        assert list(post.replies()) == []
        assert len(wire.pushed) == 1 + kills
    assert extra == [(4, each) for each in wire.pushed[1:]]
    wire.fail(MOST_KILLS - 1, KILLED)
    ((errand, reply),) = post.replies()
    assert (errand.member, reply.error.code) == (4, KILLED)
    assert not post.outstanding()


def test_who_is_gone_is_asked_again_when_it_is_back_for_as_long_as_there_was_left(wire: Wire) -> None:
    clock = FastClock()
    post = Post(wire, clock, patience=60.0)  # type: ignore[arg-type]
    post.send([(0, 10, request(10, ttl=100.0))], 1)
    wire.offline = {10}
    wire.fail(0, GONE)
    clock.sleep(30.0)
    assert list(post.replies()) == []
    clock.sleep(30.0)
    assert list(post.replies()) == []
    assert len(wire.pushed) == 1, "it is not there"
    wire.offline = set()
    assert list(post.replies()) == []
    assert [each.metadata.ttl for each in wire.pushed] == [100.0, 40.0]
    wire.answer(1)
    ((errand, reply),) = post.replies()
    assert (errand.member, errand.sent, reply.has_error()) == (0, 0.0, False)


@pytest.mark.parametrize(("ttl", "given_up"), [(500.0, 61.0), (40.0, 40.0)])
def test_who_stays_away_is_given_up_after_a_while_with_what_was_said(
    wire: Wire, ttl: float, given_up: float
) -> None:
    clock = FastClock()
    post = Post(wire, clock, patience=60.0)  # type: ignore[arg-type]
    post.send([(0, 10, request(10, ttl=ttl))], 1)
    wire.offline = {10}
    wire.fail(0, GONE)
    clock.sleep(1.0)
    assert list(post.replies()) == []
    clock.sleep(given_up - 1.5)
    assert list(post.replies()) == []
    clock.sleep(1.0)
    ((errand, reply),) = post.replies()
    assert (errand.member, reply.error.code) == (0, GONE)
    assert not post.busy(10)


def test_what_is_lost_is_not_repeated_once_its_round_is_over(wire: Wire) -> None:
    post = Post(wire, FastClock(), patience=60.0)  # type: ignore[arg-type]
    post.send([(0, 10, request(10)), (1, 20, request(20))], 1)
    wire.fail(0, GONE)
    assert list(post.replies()) == []
    post.abandon(1)
    assert not post.busy(10) and post.busy(20)
    wire.fail(1, KILLED)
    assert [errand.member for errand, _ in post.replies()] == [1]
    post.send([(0, 10, request(10))], 2)
    wire.fail(2, KILLED)
    assert list(post.replies()) == [] == list(post.replies())
    assert len(wire.pushed) == 4


def test_who_is_late_is_reminded_now_and_then_and_one_at_a_time(wire: Wire) -> None:
    clock = FastClock()
    extra: list[tuple[int, Message]] = []
    post = Post(wire, clock, extra=lambda *sent: extra.append(sent))  # type: ignore[arg-type]
    post.send([(0, 10, request(10)), (1, 20, request(20)), (-1, 30, request(30))], 1)

    def reminded(at: float) -> list[int]:
        before = len(wire.pushed)
        clock.sleep(at - clock.now())
        for _ in range(3):
            assert list(post.replies({0: 50.0, 1: 20.0, -1: 20.0}.__getitem__)) == []
        for each in wire.pushed[before:]:
            assert (each.metadata.message_type, each.metadata.ttl) == (records.REMIND, REMINDER_TTL)
        return [each.metadata.dst_node_id for each in wire.pushed[before:]]

    assert reminded(19.9) == []
    assert reminded(20.0) == [20]
    assert reminded(21.0) == [30]
    assert reminded(22.0) == []
    assert reminded(50.0) == [10]
    assert reminded(20.0 + LATE + 1.0) == [20]
    wire.answer(1)
    assert len(list(post.replies())) == 1
    assert reminded(90.0) == [30]
    assert [member for member, _ in extra] == [1, 0, 1], "of a node that is no member yet nobody keeps count"


def test_answers_are_taken_one_by_one_and_each_once(wire: Wire) -> None:
    clock = FastClock()
    post = Post(wire, clock)  # type: ignore[arg-type]
    answers = post.ask([(n, 10 * (n + 1), request(10 * (n + 1), ttl=5.0)) for n in range(3)], 2)
    wire.push_messages = lambda messages, push=wire.push_messages: push_and_answer(wire, push, messages)  # type: ignore[method-assign]
    found = [(errand.member, reply is not None, len(wire.pushed)) for errand, reply in answers]
    assert found == [(0, True, 2), (2, True, 3), (1, False, 3)]
    assert clock.now() == pytest.approx(5.0)
    assert not post.outstanding()


def push_and_answer(
    wire: Wire, push: Callable[[Iterable[Message]], list[str | None]], messages: Iterable[Message]
) -> list[str | None]:
    """Answer everybody but node 20, and twice."""
    ids = push(messages)
    if wire.pushed[-1].metadata.dst_node_id != 20:
        wire.answer(-1)
        wire.answer(-1)
    return ids


def test_pauses_grow_and_never_reach_beyond_the_limit() -> None:
    clock = FastClock()
    pause = Pause(clock)
    waits = []
    while clock.now() < 10.0:
        before = clock.now()
        pause.wait(10.0)
        waits.append(clock.now() - before)
    assert waits[:4] == pytest.approx([0.02, 0.04, 0.08, 0.16])
    assert max(waits) <= Pause.LONGEST
    assert clock.now() == pytest.approx(10.0)
