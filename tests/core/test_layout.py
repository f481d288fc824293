"""Tests of the layout: its arithmetic, its fingerprint, and what it says of another one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wash_fl.core.layout import LARGEST_TENSOR, Layout, TensorSpec, layout_of
from wash_fl.errors import LayoutError

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=200)

SPECS = st.builds(
    TensorSpec,
    st.text("ab\0.", max_size=4),
    st.lists(st.integers(1, 4), max_size=3).map(tuple),
    st.sampled_from(["float32", "float16", "a"]),
)
LAYOUTS = st.builds(
    Layout,
    st.lists(SPECS, min_size=1, max_size=4, unique_by=lambda each: each.name).map(tuple),
    st.lists(st.sampled_from("abc"), max_size=2, unique=True).map(lambda slots: ("parameter", *slots)),
)


def test_sizes_and_offsets_follow_the_tensors_in_order():
    layout = layout_of([("a", (2, 3)), ("scalar", ()), ("b", (4,))])
    assert layout.sizes.tolist() == [6, 1, 4]
    assert layout.offsets.tolist() == [0, 6, 7]
    assert layout.size == 11


def test_boundaries_part_sorted_coordinates_by_tensor():
    layout = layout_of([("a", (5,)), ("b", (1,)), ("c", (4,))])
    coordinates = np.array([0, 4, 6, 9])
    bounds = layout.boundaries(coordinates).tolist()
    assert [coordinates[begin:end].tolist() for begin, end in itertools.pairwise(bounds)] == [
        [0, 4],
        [],
        [6, 9],
    ]
    assert layout.boundaries(np.empty(0, np.int64)).tolist() == [0, 0, 0, 0]


BASE = Layout((TensorSpec("weight", (2, 3)), TensorSpec("bias", (6,))), ("parameter", "m", "v"))
CHANGED = {
    "name": Layout((TensorSpec("Weight", (2, 3)), TensorSpec("bias", (6,))), BASE.slots),
    "shape of the same size": Layout((TensorSpec("weight", (3, 2)), TensorSpec("bias", (6,))), BASE.slots),
    "one more dimension": Layout((TensorSpec("weight", (2, 3, 1)), TensorSpec("bias", (6,))), BASE.slots),
    "dtype": Layout((TensorSpec("weight", (2, 3), "float16"), TensorSpec("bias", (6,))), BASE.slots),
    "order": Layout(BASE.tensors[::-1], BASE.slots),
    "one tensor less": Layout(BASE.tensors[:1], BASE.slots),
    "no slot": Layout(BASE.tensors),
    "one slot less": Layout(BASE.tensors, ("parameter", "m")),
    "order of slots": Layout(BASE.tensors, ("parameter", "v", "m")),
    "slot": Layout(BASE.tensors, ("parameter", "m", "w")),
    "names that join alike": Layout((TensorSpec("weigh", (2, 3)), TensorSpec("tbias", (6,))), BASE.slots),
}


def test_fingerprints_differ_with_every_change():
    prints = {name: layout.fingerprint for name, layout in CHANGED.items()}
    assert len({*prints.values(), BASE.fingerprint}) == len(CHANGED) + 1
    assert all(len(each) == 32 for each in prints.values())


def test_equal_layouts_have_equal_fingerprints():
    same = layout_of([("weight", [2, 3]), ("bias", [6])], ["parameter", "m", "v"])
    assert same == BASE
    assert same.fingerprint == BASE.fingerprint


def test_names_that_read_alike_one_after_the_other_are_told_apart():
    prints = {
        Layout((TensorSpec(name, (2,), dtype),), ("parameter", *slots)).fingerprint
        for name, dtype in [("ab", "c"), ("a", "bc"), ("abc", "")]
        for slots in [("de", "f"), ("d", "ef"), ("def", "")]
    }
    assert len(prints) == 9


@ALWAYS_THE_SAME
@given(one=LAYOUTS, other=LAYOUTS)
def test_layouts_are_equal_exactly_if_their_fingerprints_are_and_if_there_is_no_difference(one, other):
    assert (one == other) == (one.fingerprint == other.fingerprint)
    assert (one == other) == (one.difference(other) == "")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("name", "Weight float32[2, 3] instead of weight float32[2, 3]"),
        ("shape of the same size", "weight float32[3, 2] instead of weight float32[2, 3]"),
        ("dtype", "weight float16[2, 3] instead of weight float32[2, 3]"),
        ("order", "bias float32[6] instead of weight float32[2, 3]"),
        ("one tensor less", "1 tensors instead of 2"),
        ("no slot", "slots ['parameter'] instead of ['parameter', 'm', 'v']"),
        ("order of slots", "slots ['parameter', 'v', 'm'] instead of ['parameter', 'm', 'v']"),
    ],
)
def test_the_difference_says_what_the_other_has_instead(change, text):
    assert BASE.difference(CHANGED[change]) == text


@pytest.mark.parametrize(
    ("tensors", "slots", "message"),
    [
        ([], ("parameter",), "at least one tensor"),
        ([("a", (2,)), ("a", (3,))], ("parameter",), r"must differ, got \['a', 'a'\]"),
        ([("a", (2, 0))], ("parameter",), r"'a' of shape \(2, 0\) has 0 elements.*Leave it out of the model"),
        ([("a", (2**31,))], ("parameter",), "2147483648 elements.*Freeze or split"),
        ([("a", (2,))], (), "start with 'parameter'"),
        ([("a", (2,))], ("m", "parameter"), "start with 'parameter'"),
        ([("a", (2,))], ("parameter", "m", "m"), "slots must differ"),
    ],
)
def test_an_impossible_layout_is_refused_with_what_was_given(tensors, slots, message):
    with pytest.raises(LayoutError, match=message):
        layout_of(tensors, slots)


def test_the_largest_tensor_is_allowed():
    assert layout_of([("a", (LARGEST_TENSOR,))]).size == 2**31 - 1
