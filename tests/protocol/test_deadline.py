"""How long a round waits: what members took lately decides, within limits; no clock is read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wash_fl.protocol.deadline import MODEL_SECONDS, SLACK, Deadline, model_seconds


def test_before_anything_is_known_a_round_waits_for_the_longest() -> None:
    assert Deadline(3600.0, 6.0).seconds() == 3600.0


def test_a_spread_of_zero_always_waits_for_the_longest() -> None:
    deadline = Deadline(3600.0, 0.0)
    for member in range(4):
        deadline.took(member, 1.0)
    assert deadline.seconds() == 3600.0


def test_one_straggler_does_not_make_the_others_wait() -> None:
    deadline = Deadline(3600.0, 6.0)
    for member in range(4):
        deadline.took(member, 20.0)
    deadline.took(4, 2000.0)
    assert 20.0 + SLACK < deadline.seconds() < 100.0


def test_members_that_differ_are_all_waited_for() -> None:
    deadline = Deadline(3600.0, 6.0)
    took = (20.0, 25.0, 30.0, 60.0, 90.0)
    for member, seconds in enumerate(took):
        deadline.took(member, seconds)
    assert deadline.seconds() > max(took)


def test_it_follows_a_fleet_that_becomes_slower() -> None:
    deadline = Deadline(3600.0, 6.0)
    for _ in range(10):
        for member in range(3):
            deadline.took(member, 10.0)
    before = deadline.seconds()
    for _ in range(5):
        for member in range(3):
            deadline.took(member, 300.0)
    assert before < 100.0
    assert deadline.seconds() > 300.0


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 1e4)), max_size=40),
    st.floats(1.0, 5000.0),
    st.floats(0.0, 20.0),
)
def test_it_is_never_longer_than_allowed_and_never_shorter_than_the_usual(
    took: list[tuple[int, float]], longest: float, spread: float
) -> None:
    deadline = Deadline(longest, spread)
    for member, seconds in took:
        deadline.took(member, seconds)
    assert min(longest, SLACK) <= deadline.seconds() <= longest


def test_late_is_by_a_members_own_habits_or_else_by_those_of_the_slowest() -> None:
    deadline = Deadline(3600.0, 6.0)
    assert deadline.late(0) == math.inf
    for seconds in (10.0, 90.0, 12.0):
        deadline.took(0, seconds)
    deadline.took(1, 100.0)
    assert deadline.late(0) == pytest.approx(1.5 * 12.0 + 15.0)
    assert deadline.late(1) == pytest.approx(1.5 * 100.0 + 15.0)
    assert deadline.late(2) == pytest.approx(2.0 * 100.0 + 15.0)


def test_a_whole_model_is_waited_for_as_a_slow_link_takes_and_no_longer_than_a_round() -> None:
    assert model_seconds(0, 3600.0) == MODEL_SECONDS == 600.0
    assert model_seconds(270_000, 3600.0) == pytest.approx(600 + 135)
    assert model_seconds(11_200_000, 3600.0) == 3600.0
    assert model_seconds(270_000, 5.0) == 5.0
