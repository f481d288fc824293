"""Flat coordinates on any model's parameters: the right places, nothing else, and no copy of the model."""

import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from wash_fl.core.layout import PARAMETER, layout_of
from wash_fl.core.selection import Selection
from wash_fl.errors import LayoutError
from wash_fl.member.parameters import (
    FlatViews,
    exchanged_parameters,
    flatten,
    gather,
    model_layout,
    model_sha256,
    scatter,
    unflatten,
)

Shape = tuple[int, ...]
MEMORY = ("contiguous", "transposed", "channels last", "strided")


def stored(shape: Shape, memory: str) -> torch.Tensor:
    """Return zeros of a shape whose memory is laid out as asked, where that is possible."""
    if memory == "transposed" and len(shape) >= 2:
        return torch.zeros(shape[::-1]).permute(*range(len(shape) - 1, -1, -1))
    if memory == "channels last" and len(shape) == 4:
        return torch.zeros(shape).to(memory_format=torch.channels_last)
    if memory == "strided" and shape:
        return torch.zeros((*shape[:-1], 2 * shape[-1]))[..., ::2]
    return torch.zeros(shape)


def model_of(kinds: list[tuple[Shape, str]]) -> nn.ParameterList:
    """Return parameters that hold 0, 1, 2, ... over all of them."""
    model = nn.ParameterList([nn.Parameter(stored(shape, memory)) for shape, memory in kinds])
    begin = 0
    for each in model:
        values = torch.arange(begin, begin + each.numel(), dtype=torch.float32)
        each.detach().copy_(values.reshape(each.shape))
        begin += each.numel()
    return model


shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
kinds = st.lists(st.tuples(shapes, st.sampled_from(MEMORY)), min_size=1, max_size=6)


@st.composite
def models_and_coordinates(draw: st.DrawFn) -> tuple[nn.ParameterList, np.ndarray]:
    model = model_of(draw(kinds))
    size = sum(each.numel() for each in model)
    chosen = draw(st.sets(st.integers(0, size - 1)))
    return model, np.array(sorted(chosen), dtype=np.int64)


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    return [each for _, each in exchanged_parameters(model)]


def memory_of(model: nn.Module) -> list[tuple[int, tuple[int, ...]]]:
    return [(each.data_ptr(), each.stride()) for each in model.parameters()]


# Gather and scatter


@given(models_and_coordinates())
def test_gather_reads_what_the_flat_vector_holds(case):
    model, coordinates = case
    vector = flatten(parameters_of(model))
    assert vector.tolist() == list(range(model_layout(model).size))
    values = gather(parameters_of(model), Selection.of(model_layout(model), coordinates))
    assert values.dtype == np.float32 and values.shape == coordinates.shape
    assert values.tolist() == coordinates.tolist()


@given(models_and_coordinates())
def test_scatter_writes_there_and_nowhere_else_and_moves_no_memory(case):
    model, coordinates = case
    expected, memory = flatten(parameters_of(model)), memory_of(model)
    expected[coordinates] = -1.0 - np.arange(coordinates.size)
    values = expected[coordinates]
    values.flags.writeable = False
    with warnings.catch_warnings(action="error"):  # torch warns about tensors of read-only memory
        scatter(parameters_of(model), Selection.of(model_layout(model), coordinates), values)
    assert flatten(parameters_of(model)).tolist() == expected.tolist()
    assert memory_of(model) == memory


@given(models_and_coordinates())
def test_what_was_gathered_scatters_back_to_the_same_bits(case):
    model, coordinates = case
    before = model_sha256(model)
    selection = Selection.of(model_layout(model), coordinates)
    scatter(parameters_of(model), selection, gather(parameters_of(model), selection))
    assert model_sha256(model) == before


def test_every_bit_of_a_value_travels():
    model = model_of([((4,), "contiguous"), ((2, 2), "transposed")])
    bits = np.array([0x80000000, 0x00000001, 0x7F7FFFFF, 0xFF7FFFFF], dtype=np.uint32)
    coordinates = np.array([0, 3, 4, 6], dtype=np.int64)
    scatter(parameters_of(model), Selection.of(model_layout(model), coordinates), bits.view(np.float32))
    back = gather(parameters_of(model), Selection.of(model_layout(model), coordinates))
    assert back.view(np.uint32).tolist() == bits.tolist()


def test_a_slice_is_a_copy_that_the_model_does_not_follow():
    model = model_of([((3, 3), "contiguous"), ((3, 3), "transposed")])
    coordinates = np.arange(18)
    values = gather(parameters_of(model), Selection.of(model_layout(model), coordinates))
    for each in model:
        each.detach().fill_(7.0)
    assert values.tolist() == list(range(18))
    values[:] = 5.0
    assert flatten(parameters_of(model)).tolist() == [7.0] * 18


# In runs


def drawn_runs(sizes: list[int], length: int, seed: int, p: float) -> Selection:
    """Return a draw in runs of a length, from tensors of which none is too small for them."""
    layout = layout_of([(str(number), (size,)) for number, size in enumerate(sizes)])
    rng = np.random.default_rng(seed)
    runs = [np.flatnonzero(rng.random(-(-size // length)) < p) for size in sizes]
    counts = [each.size for each in runs]
    return Selection(layout, [length] * len(sizes), counts, np.concatenate(runs))


run_kinds = st.lists(
    st.tuples(st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple), st.sampled_from(MEMORY)),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("by", ["views", "no views", "torch"])
@given(run_kinds, st.integers(1, 9), st.integers(0, 1000), st.sampled_from([0.0, 0.2, 0.7, 1.0]))
def test_runs_are_read_and_written_like_their_coordinates_one_by_one(by, kinds, length, seed, p):
    model = model_of(kinds)
    parameters, memory = parameters_of(model), memory_of(model)
    views = None if by == "no views" else FlatViews(parameters)
    if by == "torch":
        views.flat = lambda number: None
    selection = drawn_runs([each.numel() for each in parameters], length, seed, p)
    coordinates = selection.coordinates
    expected = flatten(parameters)
    values = gather(parameters, selection, views)
    assert values.tolist() == expected[coordinates].tolist() == coordinates.tolist()

    expected[coordinates] = -1.0 - np.arange(coordinates.size)
    new = expected[coordinates]
    new.flags.writeable = False
    with warnings.catch_warnings(action="error"):
        scatter(parameters, selection, new, views)
    assert flatten(parameters).tolist() == expected.tolist()
    assert memory_of(model) == memory


class _Allocations(TorchDispatchMode):
    """Notes the size of every tensor that an operation returns in memory of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._known = {each.untyped_storage().data_ptr() for each in model.parameters()}
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in self._known:
            self.largest = max(self.largest, result.numel())
        return result


def largest_allocation(model: nn.Module, action: Callable[[], Any]) -> int:
    """Return the elements of the largest array that an action makes, in torch or in NumPy."""
    with _Allocations(model):
        action()  # what the first call imports does not count
    tracemalloc.start()
    try:
        with _Allocations(model) as seen:
            action()
        return max(seen.largest, tracemalloc.get_traced_memory()[1] // 4)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [1, 64])
def test_an_exchange_of_a_few_values_copies_no_tensor_of_the_model(length):
    side = 400
    model = model_of(
        [
            ((side, side), "contiguous"),
            ((side, side), "transposed"),
            ((side, side // 4, 2, 2), "channels last"),
        ]
    )
    layout, parameters = model_layout(model), parameters_of(model)
    if length == 1:
        selection = Selection.of(layout, np.arange(0, layout.size, 4001))
    else:
        selection = drawn_runs([each.numel() for each in parameters], length, seed=1, p=1 / 1000)
        assert {part.tensor for part in selection.parts} == {0, 1, 2}
    values = gather(parameters, selection)

    def in_torch() -> None:
        for each in parameters:
            each.detach().contiguous()

    def in_numpy() -> None:
        for each in parameters:
            each.detach().numpy().flatten()

    few = side * side // 20
    for copying in (in_torch, in_numpy):
        assert largest_allocation(model, copying) >= side * side, "the measurement sees a copy"
    assert largest_allocation(model, lambda: gather(parameters, selection)) < few
    assert largest_allocation(model, lambda: scatter(parameters, selection, values)) < few


# What is exchanged


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.hidden = nn.Linear(3, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


def test_a_tied_weight_is_exchanged_once_and_both_views_see_the_value():
    model = _Tied()
    layout = model_layout(model)
    assert [tensor.name for tensor in layout.tensors] == ["embedding.weight", "hidden.weight", "hidden.bias"]
    scatter(parameters_of(model), Selection.of(layout, np.array([4])), np.array([9.0], dtype=np.float32))
    assert model.embedding.weight[1, 1].item() == model.output.weight[1, 1].item() == 9.0
    assert model.embedding.weight is model.output.weight


def test_frozen_parameters_are_left_out_whatever_their_dtype():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2).double())
    for frozen in (model[0].weight, model[2].weight, model[2].bias):
        frozen.requires_grad = False
    layout = model_layout(model)
    assert [tensor.name for tensor in layout.tensors] == ["0.bias", "1.weight", "1.bias"]
    before = model[0].weight.detach().clone()
    everything = Selection.of(layout, np.arange(layout.size))
    scatter(parameters_of(model), everything, np.zeros(layout.size, dtype=np.float32))
    assert torch.equal(model[0].weight, before)
    assert not model[1].weight.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_trainable_parameter_that_is_not_float32_is_refused_by_name(dtype, refused):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2).to(dtype))
    with refused(
        LayoutError, "'1.weight'", str(dtype).removeprefix("torch."), "only float32", "model.float()"
    ):
        model_layout(model)


def test_a_complex_parameter_is_refused_with_what_can_be_kept_instead(refused):
    model = nn.Linear(3, 2, dtype=torch.complex64)
    with refused(LayoutError, "'weight' is complex64", "only float32", "torch.view_as_real"):
        model_layout(model)


def test_a_model_without_trainable_parameters_is_refused(refused):
    model = nn.Linear(3, 2).requires_grad_(False)
    with refused(LayoutError, "no trainable parameter", "unfreeze"):
        model_layout(model)


@pytest.mark.parametrize("frozen", ["parameter", "buffer"])
def test_what_cannot_be_handed_in_at_the_end_is_refused_at_the_beginning(frozen, refused):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    if frozen == "parameter":
        model[1].requires_grad_(False)
        model[1].bias.data = model[1].bias.data.bfloat16()
    else:
        model[1].register_buffer("scale", torch.ones(2, dtype=torch.bfloat16))
    with refused(LayoutError, "'1.", "is bfloat16", "handed in", ".float() or .half()"):
        model_layout(model)
    assert model_layout(model.float()).size == (8 if frozen == "parameter" else 14)


def test_a_state_dict_with_more_than_tensors_is_refused(refused):
    class Counting(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            del state

    with refused(LayoutError, "'_extra_state'", "is dict", "only tensors"):
        model_layout(Counting(3, 2))


def test_the_layout_names_the_slots():
    assert model_layout(nn.Linear(3, 2)).slots == (PARAMETER,)
    assert model_layout(nn.Linear(3, 2), ("momentum_buffer",)).slots == (PARAMETER, "momentum_buffer")


# Whole vectors


@given(kinds)
def test_a_model_takes_over_a_flat_vector_in_place(given_kinds):
    model = model_of(given_kinds)
    memory = memory_of(model)
    vector = flatten(parameters_of(model)) * -2.0 + 1.0
    unflatten(vector, parameters_of(model))
    assert flatten(parameters_of(model)).tolist() == vector.tolist()
    assert memory_of(model) == memory


def test_a_flat_vector_is_a_copy():
    model = nn.Linear(3, 2)
    vector = flatten(list(model.parameters()))
    vector[:] = 0.0
    assert model.weight.any()
    assert flatten([]).shape == (0,)


@pytest.mark.parametrize("shape", [(7,), (9,), (8, 1), ()])
def test_a_vector_of_another_model_changes_nothing(shape, refused):
    model = nn.Linear(3, 2)
    before = model_sha256(model)
    with refused(LayoutError, str(shape), "8 values"):
        unflatten(np.ones(shape, dtype=np.float32), list(model.parameters()))
    assert model_sha256(model) == before


def test_the_hash_of_a_model_sees_one_bit_of_a_buffer_and_a_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    first = model_sha256(model)
    model[1].running_mean[0] = -0.0
    assert model_sha256(model) != first
    model[1].running_mean[0] = 0.0
    assert model_sha256(model) == first
    renamed = nn.Sequential()
    renamed.add_module("a", model[0])
    renamed.add_module("1", model[1])
    assert model_sha256(renamed) != first
