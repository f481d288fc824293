"""One memory under several names is found, and what shares a part of its memory is refused."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wash_fl.errors import LayoutError
from wash_fl.member.sharing import first_names, memory_of, refuse_overlaps

PLACES = 24


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """Return a view of any strides, overlapping itself or not, of a memory of 24 numbers."""
    shape = draw(st.lists(st.integers(1, 4), max_size=3))
    strides = [draw(st.integers(0, 8)) for _ in shape]
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if reach >= PLACES:
        shape, strides, reach = [PLACES], [1], PLACES - 1
    return MEMORY.as_strided(shape, strides, draw(st.integers(0, PLACES - 1 - reach)))


MEMORY = torch.arange(float(PLACES))


@given(views(), views())
def test_overlaps_are_those_that_counting_places_finds(one: torch.Tensor, other: torch.Tensor) -> None:
    # Each place in memory holds its own number.
    places = [view.reshape(-1).tolist() for view in (one, other)]
    repeated = any(len(set(each)) < len(each) for each in places)
    alike = (one.shape, one.stride(), places[0]) == (other.shape, other.stride(), places[1])
    assert (memory_of(one) == memory_of(other)) == alike
    wrong = repeated or (not alike and bool(set(places[0]) & set(places[1])))
    if wrong:
        with pytest.raises(LayoutError):
            refuse_overlaps({"one": one, "other": other})
    else:
        refuse_overlaps({"one": one, "other": other})


def test_what_was_made_apart_has_each_its_own_name_also_if_it_is_empty_or_equal() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].load_state_dict(model[0].state_dict())
    for name in ("a", "b"):
        model.register_buffer(name, torch.empty(0))
    assert first_names(model) == {name: name for name in model.state_dict()}


def test_a_module_a_parameter_and_a_buffer_of_two_names_have_the_first() -> None:
    norm = nn.BatchNorm1d(2)
    model = nn.Sequential(norm, nn.Sequential(norm), nn.Linear(2, 2), nn.Linear(2, 2))
    model[3].weight = model[2].weight
    model.register_buffer("empty", torch.empty(0))
    model[3].register_buffer("same", model.empty)
    names = first_names(model)
    assert {name: first for name, first in names.items() if name != first} == {
        "1.0.weight": "0.weight",
        "1.0.bias": "0.bias",
        "1.0.running_mean": "0.running_mean",
        "1.0.running_var": "0.running_var",
        "1.0.num_batches_tracked": "0.num_batches_tracked",
        "3.weight": "2.weight",
        "3.same": "empty",
    }


def test_the_columns_of_one_matrix_lie_among_each_other_and_share_nothing() -> None:
    matrix = torch.zeros(4, 6)
    refuse_overlaps({"left": matrix[:, :3], "right": matrix[:, 3:], "others": torch.zeros(4, 6)})


@pytest.mark.parametrize(
    ("kind", "second"),
    [
        ("a slice", lambda weight: weight[:2]),
        ("another shape", lambda weight: weight.view(-1)),
        ("transposed", lambda weight: weight.t()),
        ("another dtype", lambda weight: weight.view(torch.int32)),
        ("its negative", torch._neg_view),
    ],
)
def test_a_view_of_another_entry_is_refused_by_both_names(kind: str, second: Any, refused: Any) -> None:
    weight = torch.zeros(4, 3)
    with refused(LayoutError, "'first'", "'second'", ".clone()"):
        refuse_overlaps({"first": weight, "second": second(weight)})


def test_numbers_of_two_sizes_in_one_memory_are_refused(refused: Any) -> None:
    memory = torch.zeros(8)
    with refused(LayoutError, "'first'", "'second'"):
        refuse_overlaps({"first": memory[2:4], "second": memory.view(torch.float64)[1:2]})


@pytest.mark.parametrize(
    "view", [torch.zeros(1).expand(10), torch.zeros(3, 1).expand(3, 4), torch.arange(6.0).unfold(0, 3, 1)]
)
def test_a_tensor_that_repeats_its_own_memory_is_refused(view: torch.Tensor, refused: Any) -> None:
    with refused(LayoutError, "'mask'", str(list(view.shape)), "expanded view", ".contiguous()"):
        refuse_overlaps({"mask": view})
    refuse_overlaps({"mask": view.contiguous()})
