"""Requests that are out: who is busy, what came back, what nobody will answer any more."""

from collections.abc import Iterable

import pytest
from flwr.app import Message, RecordDict

from wash_fl.planes.clock import Pause
from wash_fl.planes.in_process import identify_process
from wash_fl.planes.post import Post

from fleet import FastClock


class Wire:
    """A grid whose replies are put in by hand."""

    def __init__(self) -> None:
        self.pushed: list[Message] = []
        self.ready: list[Message] = []
        self.refuses: set[int] = set()

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
