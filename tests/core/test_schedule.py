"""Tests of the schedule: probability over depth, over the run, and per step."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wash_fl.config import ExchangeConfig, RunConfig
from wash_fl.core import schedule as room
from wash_fl.core.layout import layout_of
from wash_fl.core.schedule import ONE, Schedule, constant, decreasing, increasing, size_aware

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=200)

SIZES = st.lists(st.integers(1, 5_000_000), min_size=1, max_size=30)
P = st.one_of(st.sampled_from([0.0, 1.0, 1e-12]), st.floats(0, 1))
PLAIN = {"schedule": "decreasing", "p_per": "exchange", "timing": "steady", "warmup": 0, "stop_after": 0}
SCHEDULES = ["decreasing", "constant", "increasing", "size-aware"]


def sized(sizes):
    return layout_of([(str(number), (size,)) for number, size in enumerate(sizes)])


def schedule(exchanges=100, steps=1, **options):
    return Schedule(ExchangeConfig(**(PLAIN | options)), exchanges, steps)


# Over depth


def test_decreasing_is_the_papers_formula():
    # WASH, section 3: p * (1 - l / (L - 1)).
    assert decreasing(0.4, [10, 20, 30, 40, 50]) == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0], abs=1e-15)


def test_increasing_is_decreasing_backwards():
    assert increasing(0.4, [10, 20, 30, 40, 50]) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4], abs=1e-15)


def test_constant_is_constant():
    assert constant(0.4, [10, 20, 30]) == [0.4, 0.4, 0.4]


def test_size_aware_gives_equal_counts_within_the_budget_of_p():
    # 0.1 of 300 is 30 coordinates: 10 for each of three.
    assert size_aware(0.1, [200, 50, 50]) == pytest.approx([0.05, 0.2, 0.2])


def test_size_aware_caps_a_small_tensor_at_one_and_shares_out_the_rest():
    # 0.5 of 103 is 51.5: the tensor of 3 gives all, the others 24.25 each.
    assert size_aware(0.5, [3, 50, 50]) == pytest.approx([1.0, 0.485, 0.485])


@ALWAYS_THE_SAME
@given(p=P, sizes=SIZES)
def test_size_aware_meets_the_budget_with_equal_counts_for_all_that_are_not_capped(p, sizes):
    fixed_point = schedule(p=p, schedule="size-aware").fixed_point(sized(sizes), 1).tolist()
    expected = [each * size / ONE for each, size in zip(fixed_point, sizes, strict=True)]
    # Half a unit of the fixed point per coordinate, and the floats' own rounding.
    slack = sum(sizes) / ONE
    assert sum(expected) == pytest.approx(p * sum(sizes), abs=slack, rel=1e-9)
    uncapped = [
        (count, size) for count, size, each in zip(expected, sizes, fixed_point, strict=True) if each < ONE
    ]
    for count, size in uncapped:
        assert count == pytest.approx(uncapped[0][0], abs=(size + uncapped[0][1]) / ONE, rel=1e-9)
    capped = [size for size, each in zip(sizes, fixed_point, strict=True) if each == ONE]
    if capped and uncapped:
        assert max(capped) <= uncapped[0][0] + slack


@ALWAYS_THE_SAME
@given(p=P, sizes=SIZES, name=st.sampled_from(["decreasing", "increasing", "constant"]))
def test_depth_schedules_stay_at_p_or_below_and_run_the_way_they_are_named(p, sizes, name):
    found = schedule(p=p, schedule=name).probabilities(sized(sizes), 1)
    assert all(0 <= each <= p for each in found)
    if name == "constant" or len(sizes) == 1:
        assert found == [p] * len(sizes)
    else:
        assert found == sorted(found, reverse=name == "decreasing")
        assert (min(found), max(found)) == (0.0, p)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_single_tensor_has_p(name):
    assert schedule(p=0.3, schedule=name).probabilities(sized([7]), 1) == pytest.approx([0.3])


# Over the run


def test_warmup_rises_linearly_to_one():
    found = [schedule(warmup=4).over_time(exchange) for exchange in range(1, 7)]
    assert found == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_nothing_moves_after_stop_after():
    timed = schedule(p=0.5, schedule="constant", stop_after=3)
    assert [timed.over_time(exchange) for exchange in (1, 3, 4, 100)] == [1.0, 1.0, 0.0, 0.0]
    assert timed.fixed_point(sized([5, 6]), 4).tolist() == [0, 0]


@ALWAYS_THE_SAME
@given(exchanges=st.integers(1, 2000), stop_after=st.integers(0, 2000))
def test_cosine_starts_at_one_falls_and_follows_the_cosine(exchanges, stop_after):
    last = stop_after or exchanges
    timed = schedule(exchanges, timing="cosine", stop_after=stop_after)
    found = [timed.over_time(exchange) for exchange in range(1, last + 1)]
    assert found[0] == 1.0
    # Neighbours as close as rounding may be equal, and no more than that out of order.
    assert all(later <= earlier + 1e-15 for earlier, later in itertools.pairwise(found))
    for exchange, factor in enumerate(found, start=1):
        assert abs(factor - (0.5 + 0.5 * math.cos(math.pi * (exchange - 1) / last))) < 1e-12
    assert 0 <= timed.over_time(last + 1) < 1e-12


@ALWAYS_THE_SAME
@given(x=st.floats(0, 1))
def test_the_cosine_without_a_c_library_is_the_cosine(x):
    assert abs(room._cos_pi(x) - math.cos(math.pi * x)) < 1e-14


@pytest.mark.parametrize(
    ("topology", "then"), [("auto", "pairs"), ("pairs", "pairs"), ("permutation", "all")]
)
def test_a_shuffle_ends_in_averages_of_the_same_members(topology, then):
    timed = schedule(8, mix="shuffle", topology=topology, average_from=0.75, dtype="int8")
    assert all(timed.options_at(exchange) is timed.config for exchange in range(1, 7))
    for exchange in (7, 8, 9, 10**12):
        found = timed.options_at(exchange)
        assert (found.mix, found.topology, found.dtype, found.average_from) == ("average", then, "int8", 0)


@ALWAYS_THE_SAME
@given(
    part=st.floats(0, 1, exclude_min=True, exclude_max=True),
    exchanges=st.integers(1, 5000),
    stop_after=st.integers(0, 5000),
)
def test_so_many_exchanges_shuffle_as_the_option_is_of_all_that_move_anything(part, exchanges, stop_after):
    last = stop_after or exchanges
    timed = schedule(exchanges, mix="shuffle", average_from=part, stop_after=stop_after)
    shuffles = math.floor(part * last)
    for exchange in {max(1, shuffles), shuffles + 1}:
        assert timed.options_at(exchange).mix == ("average" if exchange > shuffles else "shuffle")
    assert shuffles <= last


def test_without_the_option_the_rule_never_changes():
    timed = schedule(3, mix="shuffle")
    assert all(timed.options_at(exchange) is timed.config for exchange in (1, 3, 4, 10**9))


def test_warmup_and_cosine_multiply():
    timed = schedule(10, timing="cosine", warmup=5)
    assert timed.over_time(3) == pytest.approx(0.6 * (0.5 + 0.5 * math.cos(math.pi * 0.2)))


# Per step


@ALWAYS_THE_SAME
@given(p=P, steps=st.integers(1, 5000))
def test_p_per_step_is_the_chance_to_be_hit_in_any_of_the_steps(p, steps):
    found = schedule(steps=steps, p=p, p_per="step", schedule="constant").probabilities(sized([9]), 1)[0]
    # log1p and expm1 keep the digits that 1 - (1 - p)**steps loses.
    exact = 1.0 if p == 1 else -math.expm1(steps * math.log1p(-p))
    assert abs(found - exact) < 1e-12
    assert abs(found - (1 - (1 - p) ** steps)) < 1e-12


def test_p_per_exchange_does_not_look_at_the_steps():
    assert schedule(steps=50, p=0.2).probabilities(sized([3, 4]), 1) == schedule(p=0.2).probabilities(
        sized([3, 4]), 1
    )


def test_depth_comes_before_steps():
    # The last of the paper's layers stays at 0, however many steps there are.
    found = schedule(steps=100, p=0.1, p_per="step").probabilities(sized([3, 4, 5]), 1)
    assert found[2] == 0.0
    assert found[1] == pytest.approx(1 - 0.95**100)


# All together


@ALWAYS_THE_SAME
@given(
    options=st.fixed_dictionaries(
        {
            "p": P,
            "schedule": st.sampled_from(SCHEDULES),
            "p_per": st.sampled_from(["exchange", "step"]),
            "timing": st.sampled_from(["steady", "cosine"]),
            "warmup": st.integers(0, 50),
            "stop_after": st.integers(0, 50),
        }
    ),
    sizes=SIZES,
    exchanges=st.integers(1, 50),
    steps=st.integers(1, 500),
    exchange=st.one_of(st.integers(1, 60), st.just(2**64 - 1)),
)
def test_probabilities_are_never_outside_zero_and_one(options, sizes, exchanges, steps, exchange):
    timed = schedule(exchanges, steps, **options)
    assert 0.0 <= timed.over_time(exchange) <= 1.0
    found = timed.probabilities(sized(sizes), exchange)
    fixed_point = timed.fixed_point(sized(sizes), exchange)
    assert len(found) == len(fixed_point) == len(sizes)
    assert all(0.0 <= each <= 1.0 for each in found)
    assert fixed_point.dtype == np.uint64
    for each, probability in zip(fixed_point.tolist(), found, strict=True):
        assert 0 <= each <= ONE
        assert abs(each - probability * ONE) <= 0.5


@ALWAYS_THE_SAME
@given(p=P, sizes=SIZES, name=st.sampled_from(SCHEDULES))
def test_a_larger_p_never_makes_a_probability_smaller(p, sizes, name):
    assume(p < 1)
    low = schedule(p=p, schedule=name).probabilities(sized(sizes), 1)
    high = schedule(p=p + (1 - p) / 2, schedule=name).probabilities(sized(sizes), 1)
    assert all(after >= before - 1e-15 for before, after in zip(low, high, strict=True))


def test_a_runs_schedule_has_one_exchange_per_round():
    config = RunConfig.from_mapping({"rounds": 12, "local-steps": 5, "p": 0.2, "schedule": "constant"})
    found = Schedule.of(config)
    assert (found.exchanges, found.steps, found.config) == (12, 5, config.exchange)
