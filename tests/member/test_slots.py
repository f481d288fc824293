"""Which optimizer state travels with a parameter: found for any optimizer, which is left as it was."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR

from wash_fl.config import ExchangeConfig
from wash_fl.core.dtypes import DTYPES
from wash_fl.errors import LayoutError
from wash_fl.member.slots import optimizer_slots, slot_tensors, travelling_slots

OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any], tuple[str, ...]]] = {
    "sgd": (SGD, {}, ()),
    "sgd momentum": (SGD, {"momentum": 0.9}, ("momentum_buffer",)),
    "sgd nesterov": (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, ("momentum_buffer",)),
    "adam": (Adam, {}, ("exp_avg", "exp_avg_sq")),
    "adam fused": (Adam, {"fused": True}, ("exp_avg", "exp_avg_sq")),
    "adamw": (AdamW, {}, ("exp_avg", "exp_avg_sq")),
    "adamw amsgrad": (AdamW, {"amsgrad": True}, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")),
    "rmsprop": (RMSprop, {}, ("square_avg",)),
    "rmsprop centered": (
        RMSprop,
        {"centered": True, "momentum": 0.9},
        ("grad_avg", "momentum_buffer", "square_avg"),
    ),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


SIGNED = ("momentum_buffer", "exp_avg", "grad_avg")
INEXACT = [
    *({"dtype": dtype} for dtype in DTYPES if dtype != "float32"),
    {"mix": "average", "reference": "anchor"},
    {"mix": "average", "outer_momentum": 0.5},
    {"exchange_plane": "stream", "overlap": True},
]


class _Scaled(nn.Module):
    """Has a parameter without dimensions, and one that gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, 3) to (batch, 2)."""
        outputs: torch.Tensor = self.linear(inputs) * self.scale
        return outputs


def make(name: str) -> tuple[_Scaled, Optimizer]:
    kind, options, _ = OPTIMIZERS[name]
    torch.manual_seed(0)
    model = _Scaled()
    return model, kind(model.parameters(), lr=0.1, **options)  # type: ignore[call-arg]


def train(model: nn.Module, optimizer: Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        torch.autograd.backward(model(inputs).square().sum())
        optimizer.step()


@each_optimizer
def test_the_state_shaped_like_its_parameter_is_found_before_the_first_step_and_after(name):
    model, optimizer = make(name)
    assert optimizer_slots(optimizer) == OPTIMIZERS[name][2]
    train(model, optimizer, 2)
    assert optimizer_slots(optimizer) == OPTIMIZERS[name][2]


@each_optimizer
@pytest.mark.parametrize("options", INEXACT, ids=str)
def test_what_is_never_negative_travels_only_where_it_stays_so(name, options):
    _, optimizer = make(name)
    found = OPTIMIZERS[name][2]
    exact = [{"mix": "shuffle"}, {"mix": "average"}, {"exchange_plane": "stream"}]
    for each in exact:
        assert travelling_slots(optimizer, ExchangeConfig(exchange_optimizer=True, **each)) == found
    exchange = ExchangeConfig(exchange_optimizer=True, **options)
    positive = sorted(set(found).difference(SIGNED))
    if positive:
        with pytest.raises(LayoutError, match=f"{', '.join(positive)} of .* never below 0.*dtype = float32"):
            travelling_slots(optimizer, exchange)
    else:
        assert travelling_slots(optimizer, exchange) == found
    assert travelling_slots(optimizer, ExchangeConfig(**options)) == ()


@each_optimizer
def test_a_scheduler_does_not_hide_it_and_is_not_moved_on(name):
    model, optimizer = make(name)
    scheduler = CosineAnnealingLR(optimizer, T_max=10)
    train(model, optimizer, 1)
    scheduler.step()
    before = copy.deepcopy(scheduler.state_dict()), optimizer.param_groups[0]["lr"]
    assert optimizer_slots(optimizer) == OPTIMIZERS[name][2]
    assert (scheduler.state_dict(), optimizer.param_groups[0]["lr"]) == before


@each_optimizer
def test_looking_leaves_the_optimizer_and_its_parameters_as_they_were(name):
    model, optimizer = make(name)
    train(model, optimizer, 2)
    steps: list[Optimizer] = []
    optimizer.register_step_pre_hook(lambda stepped, *_: steps.append(stepped))
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    optimizer_slots(optimizer)
    after = model.state_dict(), optimizer.state_dict()
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not steps, "the user's own hooks saw a step that was none"


@pytest.mark.parametrize("name", ["adam", "adamw amsgrad", "rmsprop"])
def test_the_step_counter_is_no_slot_though_a_parameter_may_have_its_shape(name):
    model, optimizer = make(name)
    train(model, optimizer, 3)
    slots = optimizer_slots(optimizer)
    assert "step" not in slots
    assert optimizer.state[model.scale]["step"].shape == model.scale.shape == ()
    for tensors in slot_tensors(optimizer, list(model.parameters()), slots):
        assert [each.shape for each in tensors] == [each.shape for each in model.parameters()]
        assert all(each is not optimizer.state[model.scale]["step"] for each in tensors)


@each_optimizer
def test_the_tensors_are_the_optimizers_own(name):
    model, optimizer = make(name)
    train(model, optimizer, 2)
    slots = optimizer_slots(optimizer)
    parameters = list(model.parameters())
    for slot, tensors in zip(slots, slot_tensors(optimizer, parameters, slots), strict=True):
        for parameter, tensor in zip(parameters, tensors, strict=True):
            assert tensor is optimizer.state[parameter][slot]


@each_optimizer
def test_looking_at_absent_state_does_not_change_what_is_learned(name):
    looked_at, unseen = make(name), make(name)
    slots = optimizer_slots(looked_at[1])
    for _ in range(3):
        slot_tensors(looked_at[1], list(looked_at[0].parameters()), slots)
        for model, optimizer in (looked_at, unseen):
            train(model, optimizer, 1)
    torch.testing.assert_close(looked_at[0].state_dict(), unseen[0].state_dict(), rtol=0, atol=0)


@each_optimizer
def test_a_parameter_that_never_had_a_gradient_has_state_that_is_zero(name):
    model, optimizer = make(name)
    train(model, optimizer, 2)
    slots = optimizer_slots(optimizer)
    unused = [name for name, _ in model.named_parameters()].index("unused")
    for tensors in slot_tensors(optimizer, list(model.parameters()), slots):
        assert tensors[unused].shape == (4,) and not tensors[unused].any()
    if "step" in optimizer.state[model.unused]:
        assert optimizer.state[model.unused]["step"] == 0


def test_absent_state_that_does_not_begin_at_zero_begins_where_its_optimizer_begins():
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Rprop([parameter], lr=0.25)
    assert optimizer_slots(optimizer) == ("prev", "step_size")
    ((prev,), (size,)) = slot_tensors(optimizer, [parameter], ("prev", "step_size"))
    assert prev.tolist() == [0.0] * 3 and size.tolist() == [0.25] * 3


# Refusals


def test_groups_that_keep_different_state_are_refused(refused):
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": first.parameters(), "momentum": 0.9}, {"params": second.parameters()}]
    with refused(LayoutError, "different state", "momentum_buffer", "same in every group"):
        optimizer_slots(SGD(groups, lr=0.1))


def test_groups_that_differ_in_numbers_only_are_taken():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": first.parameters(), "lr": 0.1}, {"params": second.parameters(), "momentum": 0.5}]
    assert optimizer_slots(SGD(groups, lr=0.2, momentum=0.9)) == ("momentum_buffer",)


def test_an_optimizer_whose_step_needs_more_than_gradients_is_refused(refused):
    with refused(LayoutError, "LBFGS", "leave exchange-optimizer off"):
        optimizer_slots(torch.optim.LBFGS(nn.Linear(2, 2).parameters()))


def test_a_parameter_that_the_optimizer_does_not_hold_is_refused_and_leaves_no_trace(refused):
    model = nn.Linear(3, 2)
    optimizer = SGD([model.weight], lr=0.1, momentum=0.9)
    with refused(LayoutError, "[2]", "not in the optimizer", "freeze it"):
        slot_tensors(optimizer, list(model.parameters()), ("momentum_buffer",))
    assert model.bias not in optimizer.state
    optimizer.state_dict()


class _Sign(SGD):
    """A user's own optimizer, with an attribute of its own."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr, momentum=0.9)
        self.sharpness = 2.0

    def step(self, closure: Any = None) -> Any:
        """Step as SGD does, with steeper gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.mul_(self.sharpness)
        return super().step(closure)


def test_a_users_own_optimizer_with_attributes_of_its_own_is_taken():
    optimizer = _Sign(nn.Linear(2, 2).parameters(), lr=0.1)
    assert optimizer_slots(optimizer) == ("momentum_buffer",)
