"""State dicts as arrays and back, and the rule that each entry of one goes by."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.optim.swa_utils import AveragedModel

from wash_fl.core.rules import Rule, SpectralNorm
from wash_fl.core.selection import Selection
from wash_fl.errors import LayoutError
from wash_fl.member.parameters import exchanged_parameters, gather, model_layout, model_sha256, scatter
from wash_fl.member.state_dict import array_of, load_arrays, state_arrays


def rules_of(model: nn.Module) -> dict[str, Rule]:
    return dict(model_layout(model).rules.rules)


# Arrays

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as it is": lambda tensor: tensor,
    "transposed": lambda tensor: tensor.permute(*reversed(range(tensor.ndim))),
    "every other": lambda tensor: tensor[..., ::2],
    "expanded": lambda tensor: tensor[:1].expand(3, *tensor.shape[1:]),
    "flipped sign": torch._neg_view,
}
DTYPES = [torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64]


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.sampled_from(list(VIEWS)),
    st.sampled_from(DTYPES),
)
def test_an_array_holds_what_its_tensor_does_in_c_order(
    shape: list[int], view: str, dtype: torch.dtype
) -> None:
    numbers = torch.arange(float(np.prod(shape))).reshape(shape).to(dtype)
    if view == "flipped sign" and dtype == torch.bool:
        return
    tensor = VIEWS[view](numbers)
    array = array_of(tensor)
    assert array.flags.c_contiguous and array.shape == tuple(tensor.shape)
    assert array.tolist() == tensor.tolist()


def test_a_conjugated_tensor_is_one_array() -> None:
    tensor = torch.tensor([1 + 2j, 3j])
    assert array_of(tensor.conj()).tolist() == [1 - 2j, -3j]
    assert array_of(tensor.conj().imag).tolist() == [-2, -3]


def test_a_parameter_whose_sign_is_flipped_in_passing_is_read_written_and_hashed() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch._neg_view(torch.arange(6.0)))
    parameters, layout = [each for _, each in exchanged_parameters(model)], model_layout(model)
    assert gather(parameters, Selection.of(layout, np.array([1, 5]))).tolist() == [-1, -5]
    scatter(parameters, Selection.of(layout, np.array([0, 4])), np.array([7, 8], dtype=np.float32))
    assert model.weight.tolist() == [7, -1, -2, -3, 8, -5]
    plain = nn.Module()
    plain.weight = nn.Parameter(torch.tensor([7.0, -1, -2, -3, 8, -5]))
    assert model_sha256(model) == model_sha256(plain)


def test_the_hash_of_a_model_does_not_see_its_strides() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    before = model_sha256(model)
    model[2].weight = nn.Parameter(model[2].weight.detach().t().contiguous().t())
    assert model_sha256(model.to(memory_format=torch.channels_last)) == before


def test_a_reader_takes_the_first_name_whatever_the_others_say() -> None:
    norm = nn.BatchNorm1d(2)
    model = nn.Sequential(norm, norm)
    arrays = {name: each.copy() for name, each in state_arrays(model).items()}
    arrays["0.running_mean"][:] = 7.0
    load_arrays(model, arrays)
    assert norm.running_mean.tolist() == [7.0, 7.0]
    with pytest.raises(RuntimeError, match="Missing key"):
        load_arrays(model, {name: each for name, each in arrays.items() if name != "0.weight"})
    # Whether a device has them as one is its own affair.
    load_arrays(nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2)), arrays)


# Rules


def test_parameters_statistics_and_counters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.InstanceNorm1d(2, track_running_stats=True))
    model[0].bias.requires_grad_(False)
    assert rules_of(model) == {
        "0.weight": Rule.TRAINED,
        "0.bias": Rule.FROZEN,
        "1.weight": Rule.TRAINED,
        "1.bias": Rule.TRAINED,
        "1.running_mean": Rule.BATCHNORM,
        "1.running_var": Rule.BATCHNORM,
        "1.num_batches_tracked": Rule.COUNTER,
        "2.running_mean": Rule.AVERAGED,
        "2.running_var": Rule.AVERAGED,
        "2.num_batches_tracked": Rule.COUNTER,
    }


def test_statistics_of_a_frozen_batchnorm_and_of_one_of_ones_own_are_averaged() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> "Frozen":
            del mode
            super().train(False)
            return self

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(2))
            self.register_buffer("running_var", torch.ones(2))
            self.register_buffer("running_max", torch.ones(2))

    rules = rules_of(nn.Sequential(nn.Linear(2, 2), Frozen(2), Own()))
    assert {rules[f"{n}.running_{what}"] for n in (1, 2) for what in ("mean", "var")} == {Rule.AVERAGED}
    assert rules["2.running_max"] is Rule.MEMBER
    assert not model_layout(nn.Sequential(nn.Linear(2, 2), Frozen(2))).rules.batchnorm


SPECTRAL: dict[str, tuple[Callable[[], nn.Module], SpectralNorm]] = {
    "parametrization": (
        lambda: parametrizations.spectral_norm(nn.Linear(3, 2)),
        SpectralNorm(
            "parametrizations.weight.original",
            "parametrizations.weight.0._u",
            "parametrizations.weight.0._v",
            0,
            1e-12,
        ),
    ),
    "parametrization of a transposed convolution": (
        lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(3, 2, 2), eps=1e-6),
        SpectralNorm(
            "parametrizations.weight.original",
            "parametrizations.weight.0._u",
            "parametrizations.weight.0._v",
            1,
            1e-6,
        ),
    ),
    "hook": (
        lambda: old_spectral_norm(nn.Linear(3, 2)),
        SpectralNorm("weight_orig", "weight_u", "weight_v", 0, 1e-12),
    ),
    "hook on another dimension": (
        lambda: old_spectral_norm(nn.Conv1d(3, 2, 2), dim=1),
        SpectralNorm("weight_orig", "weight_u", "weight_v", 1, 1e-12),
    ),
}


@pytest.mark.parametrize("kind", SPECTRAL)
def test_spectral_norms_of_both_kinds_are_found(kind: str) -> None:
    make, expected = SPECTRAL[kind]
    rules = model_layout(make()).rules
    assert rules.spectral == (expected,)
    assert {name for name, rule in rules.rules.items() if rule is Rule.SPECTRAL} == {expected.u, expected.v}


def test_a_spectral_norm_of_what_is_in_no_state_dict_is_one_members() -> None:
    class Doubled(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2.0 * weight

    layer = nn.Linear(3, 2)
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrizations.spectral_norm(layer)
    rules = model_layout(layer).rules
    assert rules.spectral == ()
    assert rules.rules["parametrizations.weight.1._u"] is Rule.MEMBER


def test_a_vector_has_no_spectral_norm_to_be_recomputed() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.ones(3))
    assert model_layout(parametrizations.spectral_norm(module)).rules.spectral == ()


def test_observers_of_quantization_have_no_mean() -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    model = nn.Sequential(nn.Linear(3, 2), quantization.FakeQuantize())
    observed = rules_of(model)
    assert observed.pop("0.weight") is observed.pop("0.bias") is Rule.TRAINED
    assert "1.scale" in observed and set(observed.values()) == {Rule.MEMBER, Rule.COUNTER}


def test_copies_and_masks_have_no_mean() -> None:
    pruned = nn.Linear(3, 2)
    prune.random_unstructured(pruned, "weight", amount=2)
    assert rules_of(pruned)["weight_mask"] is Rule.MEMBER

    copied = nn.Module()
    copied.live = nn.Linear(3, 2)
    copied.ema = AveragedModel(copied.live).requires_grad_(False)
    rules = rules_of(copied)
    assert rules["ema.module.weight"] is Rule.FROZEN and rules["ema.n_averaged"] is Rule.COUNTER
    assert model_layout(copied).rules.marked(["ema.*"]).rules["ema.module.weight"] is Rule.AVERAGED


def test_of_one_memory_that_is_trained_under_one_of_its_names_all_is_trained() -> None:
    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Linear(3, 2)
            weight = self.student.weight.detach()
            self.register_buffer("weight", weight)

    layout = model_layout(Teacher())
    assert layout.rules.rules == {"weight": Rule.TRAINED, "student.bias": Rule.TRAINED}
    assert [tensor.name for tensor in layout.tensors] == ["student.weight", "student.bias"]


def test_two_parameters_of_one_memory_are_exchanged_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    assert [tensor.name for tensor in model_layout(model).tensors] == ["0.weight", "0.bias", "1.bias"]


# What could not be handed in


def with_buffer(make: Callable[[nn.Linear], torch.Tensor]) -> nn.Module:
    model = nn.Linear(3, 3)
    model.register_buffer("extra", make(model))
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "an expanded buffer": (
        lambda: with_buffer(lambda _: torch.zeros(1).expand(10)),
        ["'extra' of shape [10]", "expanded view"],
    ),
    "a slice of a weight": (lambda: with_buffer(lambda model: model.weight[:2]), ["'extra'", "'weight'"]),
    "a transposed weight": (lambda: with_buffer(lambda model: model.weight.t()), ["'extra'", "'weight'"]),
    "a sparse buffer": (lambda: with_buffer(lambda _: torch.eye(3).to_sparse()), ["'extra'", "sparse"]),
    "a buffer on no device": (
        lambda: with_buffer(lambda _: torch.empty(3, device="meta")),
        ["'extra'", "without values"],
    ),
    "a buffer of a dtype that no file has": (
        lambda: with_buffer(lambda _: torch.zeros(3, dtype=torch.complex128)),
        ["'extra'", "complex128"],
    ),
    "a layer without sizes": (lambda: nn.Sequential(nn.LazyLinear(2)), ["'0.weight'", "no shape yet"]),
    "statistics without sizes": (
        lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyBatchNorm1d(affine=False)),
        ["'1.running_mean'", "no shape yet"],
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_not_be_handed_in_is_refused_by_its_name(kind: str, refused: Any) -> None:
    make, parts = REFUSED[kind]
    with refused(LayoutError, *parts):
        model_layout(make())


def test_an_expanded_parameter_is_refused(refused: Any) -> None:
    model = nn.Linear(3, 2)
    model.scale = nn.Parameter(torch.zeros(1).expand(10))
    with refused(LayoutError, "'scale' of shape [10]", "expanded view"):
        model_layout(model)


def test_a_state_dict_that_leaves_out_what_is_trained_is_refused(refused: Any) -> None:
    class Forgetful(nn.Linear):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return {
                name: each for name, each in super().state_dict(*args, **kwargs).items() if name != "bias"
            }

    with refused(LayoutError, "leaves out", "shape [2]", "freeze"):
        model_layout(Forgetful(3, 2))
