"""The weights that a run begins with go only to members that cannot make them, whatever messages meet."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from flwr.app import Error, Message
from torch import nn

from wash_fl.core.identity import weights_sha256
from wash_fl.flower import records
from wash_fl.flower.in_process import CLIENT_APP_KILLED, Deliver
from wash_fl.flower.strategy import WashStrategy

from fleet import Fleet, make_model

UNABLE = (1, 3)
"""Members whose models are made with weights of their own."""


def own_model(member: int) -> nn.Module:
    model = make_model()
    if member in UNABLE:
        with torch.no_grad():
            for each in model.parameters():
                each.add_(1.0)
    return model


class Post:
    """Counts the requests to join, and does to them what a test wants."""

    def __init__(self) -> None:
        self.named: Counter[int] = Counter()
        self.sent: Counter[int] = Counter()

    def __call__(self, member: int, request: Message, deliver: Deliver) -> list[Message]:
        if request.metadata.message_type != records.JOIN:
            return deliver(request)
        brings = records.ARRAYS in request.content.array_records
        count = self.sent if brings else self.named
        count[member] += 1
        return self.join(member, request, deliver, brings)

    def join(self, member: int, request: Message, deliver: Deliver, brings: bool) -> list[Message]:
        del member, brings
        return deliver(request)


def run(folder: Path, post: Post) -> tuple[WashStrategy, str]:
    fleet = Fleet(folder, models=own_model, fault=post)
    strategy = fleet.strategy()
    result = fleet.start(strategy)
    assert result.arrays is not None
    assert strategy.collected == [0, 1, 2, 3]
    return strategy, weights_sha256(records.named_arrays(result.arrays))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of a run in which every member makes them."""
    fleet = Fleet(tmp_path_factory.mktemp("all"))
    result = fleet.run()
    assert result.arrays is not None
    return weights_sha256(records.named_arrays(result.arrays))


def test_only_who_cannot_make_them_is_sent_them_and_the_run_is_the_same(
    tmp_path: Path, expected: str
) -> None:
    post = Post()
    strategy, sha256 = run(tmp_path, post)
    assert post.named == dict.fromkeys(range(4), 1)
    assert post.sent == dict.fromkeys(UNABLE, 1)
    assert sha256 == expected
    # Everybody gets the averaged model once, for its BatchNorm; those two get a model more.
    models = [strategy.traffic.down[member].models for member in range(4)]
    assert models[0] == models[2] > 0
    assert models[1] == models[3] > 1.9 * models[0]


class Killed(Post):
    """The first ClientApp that gets the weights is killed over it, as is the first that gets their name."""

    def join(self, member: int, request: Message, deliver: Deliver, brings: bool) -> list[Message]:
        if (self.sent if brings else self.named)[member] == 1:
            return [Message(Error(CLIENT_APP_KILLED, "killed"), reply_to=request)]
        return deliver(request)


class Twice(Post):
    """Every reply comes twice, and every request is done twice."""

    def join(self, member: int, request: Message, deliver: Deliver, brings: bool) -> list[Message]:
        return [*deliver(request), *deliver(request)] * 2


class Late(Post):
    """The answer to the name comes once more with the answer to the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.old: dict[int, list[Message]] = {}

    def join(self, member: int, request: Message, deliver: Deliver, brings: bool) -> list[Message]:
        replies = deliver(request)
        if brings:
            return [*self.old.pop(member, []), *replies]
        self.old[member] = replies
        return replies


@pytest.mark.parametrize("post", [Killed(), Twice(), Late()], ids=["killed", "twice", "late"])
def test_the_two_messages_are_one_request_whatever_becomes_of_them(
    tmp_path: Path, expected: str, post: Post
) -> None:
    _, sha256 = run(tmp_path, post)
    assert sha256 == expected
    assert set(post.sent) == set(UNABLE)
    assert max(post.sent.values()) <= 2 and max(post.named.values()) <= 2


def test_weights_that_flower_does_not_take_are_a_request_that_nobody_answers(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, models=own_model, min_members=2)
    push = fleet.grid.push_messages

    def refuse(messages: list[Message]) -> list[str]:
        kept = [each for each in messages if records.ARRAYS not in each.content.array_records]
        return [*push(kept), *[""] * (len(messages) - len(kept))]

    fleet.grid.push_messages = refuse  # type: ignore[method-assign,assignment]
    strategy = fleet.strategy(recalibrate=False)
    fleet.start(strategy)
    assert set(strategy.collected).isdisjoint(UNABLE)
