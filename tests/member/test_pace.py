"""Rounds by steps and by seconds are arithmetic, and need no clock to be tested."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wash_fl.config import ExchangeConfig
from wash_fl.errors import ExchangeError
from wash_fl.member.pace import GROWTH, Round, checked_seconds, plan, smoothed, steps_within
from wash_fl.member.snapshot import Progress
from wash_fl.protocol.terms import Terms

TERMS = Terms(
    run_name="pace",
    seed=1,
    members=2,
    rounds=10,
    local_steps=24,
    exchange=ExchangeConfig(mix="shuffle", schedule="decreasing"),
)


def progress(**changes: float) -> Progress:
    return Progress(run="", member=0, layout="", settings="", initial="").after(**changes)


def drive(seconds: float, per_step: list[float]) -> list[int]:
    """Return the steps of each round of a device whose steps take so long, round after round."""
    now = progress()
    taken = []
    for number, cost in enumerate(per_step, start=1):
        round_ = plan(number, seconds, now, TERMS)
        taken.append(round_.steps)
        pace = smoothed(now.seconds_per_step, seconds=cost * round_.steps, steps=round_.steps)
        now = now.after(
            round=number, step=now.step + round_.steps, seconds_per_step=pace, last_steps=round_.steps
        )
    return taken


# By steps


@given(
    number=st.integers(1, 10), step=st.integers(0, 10_000), pace=st.floats(0, 100), last=st.integers(0, 99)
)
def test_by_steps_a_round_depends_on_its_number_alone(number, step, pace, last):
    known = progress(step=step, seconds_per_step=pace, last_steps=last)
    assert plan(number, 0.0, known, TERMS) == Round(number, (number - 1) * 24, 24, TERMS)


def test_by_steps_progress_is_the_share_of_steps_bit_for_bit():
    for number in range(1, 11):
        now = plan(number, 0.0, progress(), TERMS)
        for step in range(25):
            assert now.progress(step) == ((number - 1) * 24 + step) / (10 * 24)


# By seconds


def test_the_first_round_takes_local_steps_for_nothing_is_known():
    now = plan(1, 60.0, progress(), TERMS)
    assert (now.first_step, now.steps, now.seconds) == (0, 24, 60.0)
    # also for one that joins late, and for one that went by steps until now
    assert plan(7, 60.0, progress(step=144), TERMS).steps == 24


def test_slow_and_fast_devices_come_to_take_the_same_time():
    for cost in (0.001, 0.1, 1.0, 7.0):
        last = drive(60.0, [cost] * 10)[-1]
        assert last * cost == pytest.approx(60.0, rel=0.1)


def test_a_device_that_needs_longer_for_one_step_than_a_round_lasts_takes_one():
    assert drive(5.0, [30.0] * 4) == [24, 1, 1, 1]


def test_a_round_never_grows_by_more_than_its_limit():
    taken = drive(60.0, [1e-6] * 10)
    assert taken[0] == 24
    assert all(later == GROWTH * earlier for earlier, later in itertools.pairwise(taken))


@pytest.mark.parametrize("odd", [100.0, 0.01])
def test_one_odd_measurement_does_little_harm_and_is_soon_forgotten(odd):
    steady = 60
    taken = drive(60.0, [1.0] * 4 + [odd] + [1.0] * 5)
    assert taken[1:5] == [steady] * 4
    after = taken[5:]
    assert all(steady / 10 - 1 <= steps <= GROWTH * steady for steps in after)
    assert after[-1] == pytest.approx(steady, rel=0.5)


def test_a_device_that_became_slower_for_good_is_followed():
    taken = drive(60.0, [1.0] * 3 + [4.0] * 7)
    assert taken[2] == 60
    assert taken[-1] == pytest.approx(15, abs=1)


def test_a_clock_that_did_not_move_is_no_division_by_zero():
    pace = smoothed(0.0, seconds=0.0, steps=10)
    assert 0 < pace < 1e-9
    assert steps_within(60.0, seconds_per_step=pace, last_steps=10, first=24) == 40
    assert smoothed(1.0, seconds=-1.0, steps=10) > 0


@given(
    seconds=st.floats(1e-3, 1e6),
    pace=st.floats(0, 1e6, allow_subnormal=False),
    last=st.integers(0, 10**6),
    took=st.floats(-1, 1e9),
)
def test_whatever_was_measured_a_round_takes_at_least_one_step(seconds, pace, last, took):
    if pace and not math.isfinite(seconds / pace):
        return  # no estimate is so short: see the clock that did not move
    steps = steps_within(seconds, seconds_per_step=pace, last_steps=last, first=24)
    assert 1 <= steps <= max(24, GROWTH * last)
    assert 0 < smoothed(pace, seconds=took, steps=steps) < math.inf


def test_by_seconds_the_steps_go_on_where_this_member_was():
    known = progress(step=77, seconds_per_step=1.0, last_steps=30)
    now = plan(5, 20.0, known, TERMS)
    assert (now.first_step, now.steps) == (77, 20)


@given(number=st.integers(1, 10), pace=st.floats(0.01, 10), last=st.integers(1, 99))
def test_by_seconds_progress_follows_the_rounds_and_joins_from_one_to_the_next(number, pace, last):
    now = plan(number, 20.0, progress(step=5, seconds_per_step=pace, last_steps=last), TERMS)
    shares = [now.progress(step) for step in range(now.steps + 1)]
    assert shares[0] == pytest.approx((number - 1) / 10)
    assert shares[-1] == pytest.approx(number / 10)
    assert all(later > earlier for earlier, later in itertools.pairwise(shares))
    assert 0 <= shares[0] < shares[-1] <= 1


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, -math.inf])
def test_impossible_seconds_are_refused(refused, seconds):
    assert checked_seconds(0.0) == 0.0
    with refused(ExchangeError, f"{seconds:g} seconds", "0 (by steps) or more"):
        checked_seconds(seconds)
