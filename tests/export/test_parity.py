"""Whether two sets of outputs are the same answers."""

import math

import numpy as np
import pytest

from wash_fl.errors import ExportError
from wash_fl.export.parity import Parity, compare

REFERENCE = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.5, 0.0, 4.0]], dtype=np.float32)


def refusal(parity: Parity) -> str:
    with pytest.raises(ExportError) as caught:
        parity.raise_if_refused()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_equal_outputs_agree_entirely() -> None:
    parity = compare(REFERENCE, REFERENCE.copy(), 1e-4)
    assert parity == Parity(
        examples=3,
        largest_difference=0.0,
        worst_example=0,
        agreement=1.0,
        ties=0,
        first_disagreement=None,
        tolerance=1e-4,
    )
    parity.raise_if_refused()


def test_a_difference_up_to_the_tolerance_is_accepted_and_one_above_is_not() -> None:
    session = REFERENCE.astype(np.float64)
    session[2, 1] += 0.25
    compare(session, REFERENCE, 0.25).raise_if_refused()
    message = refusal(compare(session, REFERENCE, 0.2499))
    assert "0.25" in message
    assert "example 2 of 3" in message
    assert "0.2499" in message


def test_the_worst_example_is_named_not_the_first() -> None:
    session = REFERENCE.copy()
    session[0, 0] += 0.1
    session[1, 2] -= 0.5
    parity = compare(session, REFERENCE, 1e-4)
    assert parity.worst_example == 1
    assert math.isclose(parity.largest_difference, 0.5)
    assert parity.agreement == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("both", [False, True])
def test_outputs_that_are_not_finite_are_refused_even_if_both_are(value: float, both: bool) -> None:
    session, reference = REFERENCE.copy(), REFERENCE.copy()
    session[1, 0] = value
    if both:
        reference[1, 0] = value
    assert "not finite, first for example 1 of 3" in refusal(compare(session, reference, 1e-4))


def test_a_reference_that_is_not_finite_is_refused() -> None:
    reference = REFERENCE.copy()
    reference[2] = np.nan
    assert "not finite, first for example 2" in refusal(compare(REFERENCE, reference, 1e-4))


def test_another_top_1_answer_within_the_tolerance_is_refused() -> None:
    # Each output is off by 0.09, less than the tolerance, but the margin of 0.15 is more.
    reference = np.array([[1.0, 0.0], [1.0, 0.85]])
    session = np.array([[1.0, 0.0], [0.91, 0.94]])
    parity = compare(session, reference, 0.1)
    assert (parity.agreement, parity.ties, parity.first_disagreement) == (0.5, 0, 1)
    message = refusal(parity)
    assert "top-1 answer differs for example 1 of 2" in message
    assert "0.09" in message
    assert "0.1" in message


def test_a_tie_is_counted_and_accepted() -> None:
    reference = np.array([[1.0, 0.0], [1.0, 1.0 - 1e-6], [2.0, 2.0]])
    session = np.array([[1.0, 0.0], [1.0, 1.0 + 1e-6], [2.0, 2.0 + 1e-6]])
    parity = compare(session, reference, 1e-4)
    assert (parity.ties, parity.first_disagreement) == (2, None)
    assert math.isclose(parity.agreement, 1 / 3)
    parity.raise_if_refused()


def test_the_margin_between_the_two_answers_decides_not_the_margin_to_the_second() -> None:
    # Classes 0 and 1 are tied in the reference, but the session answers 2, which is far behind.
    reference = np.array([[1.0, 1.0, 0.0]])
    session = np.array([[1.0, 1.0, 1.5]])
    assert compare(session, reference, 1.0).first_disagreement == 0


@pytest.mark.parametrize(
    ("ours", "theirs"), [((3, 2), (3, 3)), ((0, 3), (0, 3)), ((3,), (3,)), ((3, 0), (3, 0)), ((2, 3), (3, 3))]
)
def test_outputs_that_cannot_be_compared_are_refused(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    with pytest.raises(ExportError, match="cannot be compared"):
        compare(np.zeros(ours), np.zeros(theirs), 1e-4)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan, math.inf])
def test_a_tolerance_that_accepts_all_or_nothing_is_refused(tolerance: float) -> None:
    with pytest.raises(ExportError, match="finite number above 0"):
        compare(REFERENCE, REFERENCE, tolerance)
