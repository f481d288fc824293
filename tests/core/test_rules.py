"""The rules of a state dict: one name stands for all, and only what has a mean is averaged."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from wash_fl.core.rules import Rule, StateRules, not_finite, other_names, same_bits
from wash_fl.errors import LayoutError

RULES = StateRules(
    {
        "weight": Rule.TRAINED,
        "norm.running_mean": Rule.BATCHNORM,
        "ema.weight": Rule.MEMBER,
        "ema.batches": Rule.COUNTER,
        "norm.u": Rule.SPECTRAL,
        "quantile": Rule.MEMBER,
    },
    {
        "weight": "weight",
        "head.weight": "weight",
        "norm.running_mean": "norm.running_mean",
        "ema.weight": "ema.weight",
        "ema.batches": "ema.batches",
        "norm.u": "norm.u",
        "trunk.quantile": "quantile",
        "quantile": "quantile",
    },
)

firsts = st.lists(st.integers(0, 4), min_size=1, max_size=9).map(
    lambda groups: {f"name{n}": f"name{groups.index(group)}" for n, group in enumerate(groups)}
)
arrays = arrays_of.arrays(
    st.sampled_from([np.float32, np.float16, np.int64, np.bool_, np.complex64]),
    arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)


@given(firsts)
def test_every_name_gets_the_array_of_its_first_name_in_the_order_of_the_names(first: dict[str, str]) -> None:
    rules = StateRules(dict.fromkeys(first.values(), Rule.MEMBER), first)
    own = {name: np.array([number]) for number, name in enumerate(first)}
    spread = rules.spread(own)
    assert list(spread) == list(first)
    assert all(spread[name] is own[canonical] for name, canonical in first.items())
    assert rules.conflict(spread) == ""
    others = [name for name, canonical in first.items() if name != canonical]
    assert rules.conflict(own) == next(iter(others), "")


@given(firsts, st.data())
def test_the_other_names_are_all_of_the_group_whichever_name_is_given(
    first: dict[str, str], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(list(first)))
    others = other_names(first, [name, "nobody's"])
    group = {each for each, canonical in first.items() if canonical == first[name]}
    assert others == dict.fromkeys(group - {name}, name)


@given(arrays)
def test_bits_are_the_same_whatever_the_strides(array: np.ndarray[Any, Any]) -> None:
    assert same_bits(array, array.copy(order="F"))
    assert same_bits(array, np.repeat(array[..., np.newaxis], 2, axis=-1)[..., 0])
    assert not same_bits(array, array[np.newaxis])
    if array.size and array.dtype != np.bool_:
        other = array.copy()
        other.reshape(-1).view(f"u{array.dtype.itemsize}")[-1] ^= 1
        assert not same_bits(array, other)


def test_a_nan_is_itself_and_zero_is_not_minus_zero() -> None:
    assert same_bits(np.array([np.nan]), np.array([np.nan]))
    assert not same_bits(np.array([0.0]), np.array([-0.0]))
    assert not same_bits(np.zeros(2, np.float32), np.zeros(2, np.int32))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([1.0, -np.inf]), True),
        (np.array(np.nan, dtype=np.float16), True),
        (np.array([1 + np.inf * 1j]), True),
        (np.array([1.0, 2.0]), False),
        (np.array([1, 2]), False),
        (np.empty(0), False),
    ],
)
def test_what_is_not_finite_is_seen(array: np.ndarray[Any, Any], expected: bool) -> None:
    assert not_finite(array) is expected


@pytest.mark.parametrize("pattern", ["ema.weight", "ema.*", "*", "e?a.*"])
def test_a_pattern_marks_what_would_be_one_members_and_nothing_else(pattern: str) -> None:
    marked = RULES.marked([pattern]).rules
    assert marked["ema.weight"] is Rule.AVERAGED
    for name in ("weight", "norm.running_mean", "ema.batches", "norm.u"):
        assert marked[name] is RULES.rules[name]
    assert (marked["quantile"] is Rule.AVERAGED) == (pattern == "*")


def test_an_entry_may_be_marked_by_any_of_its_names() -> None:
    assert RULES.marked(["trunk.*"]).rules["quantile"] is Rule.AVERAGED
    assert RULES.marked(["trunk.*"]).has_mean("trunk.quantile")
    assert not RULES.has_mean("quantile") and RULES.has_mean("head.weight")


def test_marking_what_is_averaged_anyway_is_no_mistake() -> None:
    assert RULES.marked(["weight", "norm.running_*"]).rules == RULES.rules
    assert RULES.marked([]).rules == RULES.rules


@pytest.mark.parametrize("pattern", ["emma.*", "EMA.*", "ema.batches", "norm.u", ""])
def test_a_pattern_of_nothing_that_could_be_averaged_is_refused(pattern: str, refused: Any) -> None:
    with refused(LayoutError, repr(pattern), "ema.weight, quantile"):
        RULES.marked(["ema.*", pattern])
    with refused(LayoutError, "there is none"):
        StateRules.of({"weight": Rule.TRAINED}).marked(["other"])
