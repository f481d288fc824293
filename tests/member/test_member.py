"""A member offers a copy, takes a delivery at most once, and with WASH+Opt its momentum travels."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from wash_fl.config import ExchangeConfig
from wash_fl.core.schedule import Schedule
from wash_fl.errors import ExchangeError
from wash_fl.member.member import Member
from wash_fl.member.parameters import model_sha256


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.unused = nn.Parameter(torch.ones(6))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, 4) to (batch, 3)."""
        outputs: torch.Tensor = self.last(torch.tanh(self.norm(self.first(inputs)))) * self.scale
        return outputs


def make(
    index: int = 0, optimizer: type[Optimizer] = SGD, p: float = 0.5, opt: bool = False, **options: Any
) -> Member:
    torch.manual_seed(index)
    model = _Model()
    if optimizer is SGD:
        options.setdefault("momentum", 0.9)
    made = optimizer(model.parameters(), lr=0.05, **options)  # type: ignore[call-arg]
    schedule = Schedule(ExchangeConfig(p=p, mix="shuffle", schedule="constant", exchange_optimizer=opt))
    return Member(model, made, index=index, seed=11, schedule=schedule)


def train(member: Member, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(100 * member.index + step)
        member.optimizer.zero_grad()
        inputs = torch.randn(8, 4, generator=generator)
        torch.autograd.backward(member.model(inputs).square().mean())
        member.optimizer.step()


def test_an_offer_is_what_the_model_holds_at_the_exchanges_coordinates():
    member = make()
    for exchange in range(1, 5):
        coordinates = member.draw.coordinates(exchange)
        offer = member.offer(exchange)
        assert 0 < coordinates.size < member.layout.size
        assert offer.shape == (1, coordinates.size) and offer.dtype == np.float32
        assert offer[0].tolist() == member.parameters()[coordinates].tolist()


def test_an_offer_is_a_copy_and_changes_nothing():
    member = make()
    before = model_sha256(member.model)
    offer = member.offer(1)
    offer[:] = 0.0
    assert model_sha256(member.model) == before and member.applied == 0


def test_a_delivery_is_taken_over_at_its_coordinates_and_nowhere_else():
    member = make()
    expected = member.parameters()
    coordinates = member.draw.coordinates(2)
    values = np.arange(coordinates.size, dtype=np.float32)[None] + 100.0
    values.flags.writeable = False
    expected[coordinates] = values[0]
    buffers = [each.clone() for each in member.model.buffers()]
    assert member.deliver(2, values)
    assert member.applied == 2
    assert member.parameters().tolist() == expected.tolist()
    assert all(torch.equal(*pair) for pair in zip(member.model.buffers(), buffers, strict=True))
    assert member.offer(2).tolist() == values.tolist()


def test_a_delivery_is_applied_at_most_once_and_an_older_one_never():
    member = make()
    values = np.zeros((1, member.draw.count(3)), dtype=np.float32)
    assert member.deliver(3, values)
    train(member, 1)
    after = model_sha256(member.model)
    assert not member.deliver(3, values + 1.0)
    assert not member.deliver(1, np.ones((1, member.draw.count(1)), dtype=np.float32))
    assert not member.deliver(2, np.ones((7, 7), dtype=np.float32)), "not even looked at"
    assert model_sha256(member.model) == after and member.applied == 3
    assert member.deliver(4, np.zeros((1, member.draw.count(4)), dtype=np.float32))


@pytest.mark.parametrize("opt", [False, True])
def test_a_delivery_of_the_wrong_shape_changes_nothing_and_the_right_one_is_still_taken(opt, refused):
    member = make(opt=opt)
    train(member, 1)
    right = member.offer(1) + 1.0
    slots, count = right.shape
    before = model_sha256(member.model), copy.deepcopy(member.optimizer.state_dict())
    for shape in [(slots, count - 1), (slots, count + 1), (slots + 1, count), (count,), (0, count)]:
        with refused(ExchangeError, str(shape), "exchange 1", str((slots, count))):
            member.deliver(1, np.zeros(shape, dtype=np.float32))
    assert model_sha256(member.model) == before[0] and member.applied == 0
    torch.testing.assert_close(member.optimizer.state_dict(), before[1], rtol=0, atol=0)
    assert member.deliver(1, right)


def test_its_own_offer_delivered_back_changes_no_bit():
    member = make(opt=True)
    train(member, 2)
    before = model_sha256(member.model), copy.deepcopy(member.optimizer.state_dict())
    assert member.deliver(1, member.offer(1))
    assert model_sha256(member.model) == before[0]
    torch.testing.assert_close(
        member.optimizer.state_dict()["state"][0], before[1]["state"][0], rtol=0, atol=0
    )


def test_without_coordinates_an_offer_is_empty():
    member = make(p=0.0)
    assert member.offer(1).shape == (1, 0)
    before = model_sha256(member.model)
    assert member.deliver(1, np.empty((1, 0), dtype=np.float32))
    assert model_sha256(member.model) == before


def test_a_whole_vector_is_taken_over_in_place():
    member, other = make(0), make(1)
    memory = [each.data_ptr() for each in member.model.parameters()]
    member.load_parameters(other.parameters())
    assert member.parameters().tolist() == other.parameters().tolist()
    assert [each.data_ptr() for each in member.model.parameters()] == memory


# WASH+Opt

ADAPTIVE: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {"momentum": 0.9}),
    (Adam, {}),
    (AdamW, {"amsgrad": True}),
]
each_adaptive = pytest.mark.parametrize(
    ("optimizer", "options"), ADAPTIVE, ids=["sgd momentum", "adam", "adamw amsgrad"]
)


def state_vector(member: Member, slot: str) -> np.ndarray:
    parts = []
    for _, parameter in member.model.named_parameters():
        state = member.optimizer.state[parameter].get(slot)
        parts.append(np.zeros(parameter.numel()) if state is None else state.numpy().reshape(-1))
    return np.concatenate(parts)


@each_adaptive
def test_after_a_delivery_the_optimizer_holds_the_partners_state_there_and_its_own_elsewhere(
    optimizer, options
):
    member, partner = (make(index, optimizer, opt=True, **options) for index in (0, 1))
    for each in (member, partner):
        train(each, 3)
    assert member.layout.fingerprint == partner.layout.fingerprint
    slots = member.layout.slots[1:]
    assert slots
    coordinates = member.draw.coordinates(1)
    expected = {slot: state_vector(member, slot).copy() for slot in slots}
    steps = {key: value.get("step") for key, value in member.optimizer.state.items()}
    for slot in slots:
        moved = state_vector(partner, slot)[coordinates]
        assert (moved != expected[slot][coordinates]).any(), "nothing to tell them apart by"
        expected[slot][coordinates] = moved
    assert member.deliver(1, partner.offer(1))
    for slot in slots:
        assert state_vector(member, slot).tolist() == expected[slot].tolist()
    for key, step in steps.items():
        assert step is None or member.optimizer.state[key]["step"] == step, "a counter is no slot"


@each_adaptive
def test_after_swapping_everything_each_member_goes_on_as_the_other_would_have(optimizer, options):
    members = [make(index, optimizer, p=1.0, opt=True, **options) for index in (0, 1)]
    for each in members:
        train(each, 3)
    others = [copy.deepcopy(each) for each in reversed(members)]
    offers = [each.offer(1) for each in members]
    for each, offer in zip(members, reversed(offers), strict=True):
        assert each.deliver(1, offer)
    for each, other in zip(members, others, strict=True):
        # BatchNorm statistics do not travel, and the data stays with its member.
        each.model.norm.load_state_dict(other.model.norm.state_dict())
        other.index = each.index
        train(each, 3, first=3)
        train(other, 3, first=3)
        assert each.parameters().tolist() == other.parameters().tolist()


@each_adaptive
def test_an_offer_before_the_first_step_changes_nothing_in_what_is_learned(optimizer, options):
    offering, silent = (make(0, optimizer, opt=True, **options) for _ in range(2))
    for step in range(3):
        offer = offering.offer(step + 1)
        assert step or not offer[1:].any()
        for each in (offering, silent):
            train(each, 1, first=step)
    assert offering.parameters().tolist() == silent.parameters().tolist()


def test_without_wash_opt_the_optimizer_is_left_alone():
    member, partner = make(0), make(1)
    for each in (member, partner):
        train(each, 2)
    before = copy.deepcopy(member.optimizer.state_dict())
    assert member.layout.slots == ("parameter",)
    member.deliver(1, partner.offer(1))
    torch.testing.assert_close(member.optimizer.state_dict(), before, rtol=0, atol=0)


def test_the_layout_says_whether_optimizer_state_travels():
    fingerprints = {
        make(opt=opt, optimizer=kind).layout.fingerprint for opt in (False, True) for kind in (SGD, Adam)
    }
    assert len(fingerprints) == 3  # without it, the optimizer is each member's own affair
