"""A training loop steps the optimizer that its member keeps, or it is told."""

import pytest
import torch
from torch import nn

from wash_fl.errors import ConfigError
from wash_fl.member.steps import own_steps


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.fixture
def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(model, optimizer):
    optimizer.zero_grad()
    torch.autograd.backward(model(torch.ones(2, 3)).square().mean())
    optimizer.step()


def test_its_own_optimizer_may_be_stepped(model, optimizer):
    with own_steps(optimizer, {}, model):
        train(model, optimizer)


def test_one_that_train_makes_is_refused_by_its_name(model, optimizer):
    with (
        pytest.raises(ConfigError, match=r"steps an optimizer of its own \(Adam\)"),
        own_steps(optimizer, {}, model),
    ):
        train(model, torch.optim.Adam(model.parameters()))


def test_also_beside_its_own_and_over_some_of_the_parameters(model, optimizer):
    head = torch.optim.Adam(model[1].parameters())
    with pytest.raises(ConfigError, match="hand the other over"), own_steps(optimizer, {}, model):
        train(model, optimizer)
        train(model, head)
    with own_steps(optimizer, {"head": head}, model):
        train(model, optimizer)
        train(model, head)


def test_one_of_another_model_is_nobodys_matter(model, optimizer):
    other = nn.Linear(3, 1)
    with own_steps(optimizer, {}, model):
        train(other, torch.optim.Adam(other.parameters()))
        train(model, optimizer)


def test_of_a_loop_that_does_nothing_there_is_a_word_in_the_log(model, optimizer, caplog, flower_log):
    with caplog.at_level("WARNING", "flwr.wash_fl"), own_steps(optimizer, {}, model):
        pass
    assert "took no step" in caplog.text


def test_a_loop_may_change_the_parameters_without_any_optimizer(model, optimizer, caplog, flower_log):
    with caplog.at_level("WARNING", "flwr.wash_fl"), own_steps(optimizer, {}, model):
        for each in model.parameters():
            each.data.add_(1.0)
    assert not caplog.messages


def test_a_gradient_scaler_may_leave_the_only_step_out(model, optimizer):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    with own_steps(optimizer, {"scaler": scaler}, model):
        torch.autograd.backward(scaler.scale(model(torch.full((2, 3), 1e30)).square().sum()))
        scaler.step(optimizer)
        scaler.update()


def test_what_train_raises_is_what_is_said(model, optimizer):
    with pytest.raises(ZeroDivisionError), own_steps(optimizer, {}, model):
        raise ZeroDivisionError
    with own_steps(optimizer, {}, model):  # and nothing is left hooked
        train(model, optimizer)
