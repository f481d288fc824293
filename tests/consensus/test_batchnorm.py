"""BatchNorm statistics are those of the data: by hand for one batch, pooled for several clients."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wash_fl.consensus.batchnorm import BatchNormStatistics, estimate, pool
from wash_fl.errors import DataError
from wash_fl.member.state_dict import batchnorm_layers


class _Model(nn.Module):
    """Has dropout before BatchNorm, so that estimating with dropout on would show."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.dropout = nn.Dropout(0.5)
        self.first = nn.BatchNorm2d(3, momentum=0.3)
        self.second = nn.BatchNorm1d(3, momentum=None)
        self.untracked = nn.BatchNorm1d(3, track_running_stats=False)
        self.last = nn.Linear(3, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, 2, 6, 6) to (batch, 2)."""
        hidden = torch.relu(self.first(self.dropout(self.conv(inputs)))).mean((2, 3))
        outputs: torch.Tensor = self.last(self.untracked(self.second(hidden)))
        return outputs


def make() -> _Model:
    torch.manual_seed(4)
    model = _Model()
    for _ in range(2):
        model(torch.randn(5, 2, 6, 6) + 3.0)
    return model


def batch(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2.0 + 0.5


def by_hand(model: _Model, inputs: torch.Tensor) -> dict[str, np.ndarray]:
    """Mean and unbiased variance of what enters each layer, in float64 and without dropout."""
    twin = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        hidden = twin.conv(inputs.double())
        flat = hidden.transpose(0, 1).reshape(3, -1)
        statistics = {"first.running_mean": flat.mean(1), "first.running_var": flat.var(1)}
        scale = twin.first.weight[:, None] / torch.sqrt(flat.var(1, correction=0)[:, None] + twin.first.eps)
        normal = (flat - flat.mean(1, keepdim=True)) * scale + twin.first.bias[:, None]
        pooled = torch.relu(normal).reshape(3, len(inputs), -1).mean(2)
        statistics |= {"second.running_mean": pooled.mean(1), "second.running_var": pooled.var(1)}
    return {name: tensor.numpy() for name, tensor in statistics.items()}


# Estimating


def test_one_batch_gives_that_batchs_statistics_with_dropout_off():
    model, inputs = make(), batch(40)
    expected = by_hand(model, inputs)
    statistics = estimate(model, [inputs])
    assert statistics.examples == 40
    assert set(statistics.buffers()) == set(expected)
    for name, array in statistics.buffers().items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], rtol=2e-5, atol=2e-6)
    # the model gets them, too
    for name, array in statistics.buffers().items():
        assert model.state_dict()[name].numpy().tobytes() == array.tobytes()


def test_several_batches_give_their_plain_average_whatever_the_layers_momentum():
    model = make()
    batches = [batch(16, seed) for seed in range(3)]
    each = [estimate(copy.deepcopy(model), [one]).mean["first"] for one in batches]
    together = estimate(model, batches)
    assert together.examples == 48
    np.testing.assert_allclose(together.mean["first"], np.mean(each, axis=0), rtol=1e-5, atol=1e-6)


def test_what_the_statistics_were_before_does_not_matter():
    first, second = make(), make()
    second.first.running_mean.fill_(1e6)
    second.first.num_batches_tracked.fill_(77)
    one, two = (estimate(model, [batch(8)]).buffers() for model in (first, second))
    assert {name: array.tobytes() for name, array in one.items()} == {
        name: array.tobytes() for name, array in two.items()
    }


def test_weights_and_momentum_are_as_before_and_the_model_is_in_evaluation_mode():
    model = make().train()
    weights = {name: each.clone() for name, each in model.named_parameters()}
    estimate(model, [batch(8)])
    assert (model.first.momentum, model.second.momentum) == (0.3, None)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(each, weights[name]) for name, each in model.named_parameters())
    assert all(each.grad is None for each in model.parameters())


def test_momentum_and_mode_are_restored_when_the_data_breaks_off():
    model = make().train()

    def batches():
        yield batch(4)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        estimate(model, batches())
    assert model.first.momentum == 0.3
    assert not any(module.training for module in model.modules())


def test_no_batch_is_refused(refused):
    model = make()
    with refused(DataError, "without examples", "at least one batch"):
        estimate(model, [])
    assert model.first.momentum == 0.3


class _Frozen(_Model):
    """Keeps its first layer's statistics, as fine-tuning does."""

    def train(self, mode: bool = True) -> "_Frozen":
        """Set the mode of everything but the first BatchNorm layer."""
        super().train(mode)
        self.first.eval()
        return self


def test_a_frozen_layer_is_left_out_and_untouched():
    torch.manual_seed(0)
    model = _Frozen()
    model.first.running_mean.fill_(0.25)
    before = model.first.state_dict()["running_mean"].clone()
    assert list(batchnorm_layers(model)) == ["second"]
    statistics = estimate(model, [batch(8)])
    assert list(statistics.mean) == ["second"]
    assert torch.equal(model.first.running_mean, before)
    assert model.first.num_batches_tracked == 0


def test_layers_are_found_in_order_and_looking_changes_no_modules_mode():
    model = make().eval()
    model.first.train()
    before = {name: module.training for name, module in model.named_modules()}
    assert list(batchnorm_layers(model)) == ["first", "second"]
    assert {name: module.training for name, module in model.named_modules()} == before
    assert batchnorm_layers(nn.Linear(2, 2)) == {}


# Pooling


def statistics_of(values: np.ndarray) -> BatchNormStatistics:
    """Statistics of a layer's inputs, shape (examples, channels): population variance."""
    return BatchNormStatistics(
        {"norm": values.mean(0).astype(np.float32)}, {"norm": values.var(0).astype(np.float32)}, len(values)
    )


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    shift=st.floats(-5, 5),
    seed=st.integers(0, 100),
)
def test_pooled_statistics_are_those_of_the_union_for_shares_of_any_size(sizes, shift, seed):
    generator = np.random.Generator(np.random.Philox(seed))
    parts = [
        generator.standard_normal((size, 3)) * (index + 1) + shift * index for index, size in enumerate(sizes)
    ]
    union, pooled = statistics_of(np.concatenate(parts)), pool([statistics_of(part) for part in parts])
    assert pooled.examples == sum(sizes)
    np.testing.assert_allclose(pooled.mean["norm"], union.mean["norm"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pooled.variance["norm"], union.variance["norm"], rtol=1e-4, atol=1e-5)


def test_pooling_one_estimate_returns_it():
    model = make()
    one = estimate(model, [batch(8)])
    pooled = pool([one])
    assert pooled.examples == one.examples
    assert all(np.array_equal(pooled.buffers()[name], array) for name, array in one.buffers().items())


def test_pooling_nothing_or_different_models_is_refused(refused):
    here = statistics_of(np.ones((4, 2)))
    other = BatchNormStatistics({"other": here.mean["norm"]}, {"other": here.variance["norm"]}, 4)
    for estimates in ([], [here, other]):
        with refused(DataError, "one model", "at least one estimate"):
            pool(estimates)


# Applying


def test_statistics_take_the_place_of_a_state_dicts_own_and_nothing_else_does():
    model = make()
    state = {name: each.numpy().copy() for name, each in model.state_dict().items()}
    statistics = estimate(make(), [batch(8)])
    applied = statistics.applied_to(state)
    assert list(applied) == list(state)
    for name, array in applied.items():
        expected = statistics.buffers().get(name, state[name])
        assert np.array_equal(array, expected)
    assert not np.array_equal(state["first.running_mean"], applied["first.running_mean"]), "a new dict"


def test_buffers_are_read_back():
    statistics = estimate(make(), [batch(8)])
    back = BatchNormStatistics.from_buffers(statistics.buffers(), statistics.examples)
    assert back.examples == 8
    assert list(back.mean) == list(statistics.mean) == ["first", "second"]
    for name, array in statistics.buffers().items():
        assert np.array_equal(back.buffers()[name], array)


def test_statistics_of_another_model_are_refused(refused):
    state = {name: each.numpy() for name, each in make().state_dict().items()}
    good = np.zeros(3, dtype=np.float32)
    for mean, layer in ((good, "third"), (np.zeros(4, dtype=np.float32), "first"), (good * np.nan, "first")):
        statistics = BatchNormStatistics({layer: mean}, {layer: mean}, 5)
        with refused(DataError, f"{layer}.running_mean", "do not fit the model"):
            statistics.applied_to(state)


# Names and branches


class _AliasModel(nn.Module):
    """A layer with three names, one of them of its buffer alone and before its own."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(3)
        self.register_buffer("center", norm.running_mean)
        self.norm = norm
        self.trunk = nn.Sequential(norm, nn.Linear(3, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.trunk(inputs)
        return outputs


def test_a_layer_with_several_names_is_applied_under_all_of_them():
    model = _AliasModel()
    state = {name: each.numpy().copy() for name, each in model.state_dict().items()}
    inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 5 + 7
    statistics = estimate(model, [inputs])
    assert list(statistics.mean) == ["norm"]
    for each in (statistics, pool([statistics, statistics])):
        applied = each.applied_to(state)
        for name in ("norm.running_mean", "trunk.0.running_mean", "center"):
            np.testing.assert_allclose(applied[name], inputs.mean(0), rtol=1e-5)
        for name in ("norm.running_var", "trunk.0.running_var"):
            assert np.array_equal(applied[name], each.variance["norm"])
        other = _AliasModel()
        other.load_state_dict({name: torch.from_numpy(array) for name, array in applied.items()})
        assert torch.equal(other.norm.running_mean, torch.from_numpy(each.mean["norm"]))


def test_a_buffer_of_two_layers_has_what_its_last_layer_saw():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    model[1].running_mean = model[0].running_mean
    state = {name: each.numpy().copy() for name, each in model.state_dict().items()}
    applied = estimate(model, [torch.randn(9, 2) + 5]).applied_to(state)
    assert np.array_equal(applied["0.running_mean"], applied["1.running_mean"])
    assert np.array_equal(applied["0.running_mean"], model[0].running_mean.numpy())


class _Branch(nn.Module):
    """Has a layer that is only there in training."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.helper = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
        self.last = nn.Linear(2, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.main(inputs)
        outputs: torch.Tensor = self.last(hidden + self.helper(hidden) if self.training else hidden)
        return outputs


def test_a_layer_that_no_batch_reaches_keeps_its_statistics_and_is_left_out():
    model = _Branch()
    model(torch.randn(8, 2) + 3)
    before = {name: each.clone() for name, each in model.helper.named_buffers()}
    statistics = estimate(model, [torch.randn(8, 2) - 4])
    assert list(statistics.mean) == ["main"]
    assert all(torch.equal(each, before[name]) for name, each in model.helper.named_buffers())
    assert model.helper.num_batches_tracked == 1


def test_putting_back_what_was_not_reached_does_not_undo_what_was():
    model = _Branch()
    model.helper.running_mean = model.main.running_mean
    inputs = torch.randn(8, 2) - 4
    statistics = estimate(model, [inputs])
    for mean in (model.main.running_mean.numpy(), statistics.mean["main"]):
        np.testing.assert_allclose(mean, inputs.mean(0), rtol=1e-5)
    assert statistics.aliases == {"helper.running_mean": "main.running_mean"}
