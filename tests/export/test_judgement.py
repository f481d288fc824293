"""An int8 file is judged in all, by class and by answer, and no class for the noise of few examples."""

import math

import numpy as np
import pytest

from wash_fl.export.judgement import Judgement, judge, most_by_chance

CLASSES = ("common", "second", "rare")


def logits_of(answers: np.ndarray) -> np.ndarray:
    return np.eye(len(CLASSES), dtype=np.float32)[answers]


def judged(
    examples: tuple[int, int, int], losses: dict[int, int], gained: int = 0, tolerance: float = 0.5
) -> Judgement:
    """Judge a file that answers ``losses`` examples of a class as another, where float32 was right but for
    ``gained`` of the first class."""
    targets = np.repeat(np.arange(3), examples)
    before, after = targets.copy(), targets.copy()
    before[:gained] = 1
    for index, count in losses.items():
        places = np.flatnonzero(targets == index)[-count:] if count else []
        after[places] = (index + 1) % 3
    return judge(logits_of(after), logits_of(before), targets, CLASSES, tolerance)


def test_a_rare_class_that_loses_a_third_fails_though_accuracy_is_kept() -> None:
    judgement = judged((1500, 1159, 8), {2: 3})
    assert judgement.int8_accuracy == pytest.approx(0.9989, abs=1e-4) and judgement.points_lost < 0.5
    worst = judgement.worst
    assert (worst.name, worst.examples, worst.float32_right, worst.int8_right) == ("rare", 8, 8, 5)
    (failure,) = judgement.failures
    for part in ("'rare'", "100.00% to 62.50%", "3 of its 8 examples are lost, and 1 may be"):
        assert part in failure


@pytest.mark.parametrize(
    ("examples", "loss"),
    [((1500, 1497, 3), 1), ((1500, 1499, 1), 1), ((1500, 1460, 40), 2), ((5000, 5000, 3000), 24)],
)
def test_a_class_may_lose_what_chance_takes(examples: tuple[int, int, int], loss: int) -> None:
    assert judged(examples, {2: loss}).failures == ()


@pytest.mark.parametrize(
    ("examples", "loss"), [((1500, 1497, 3), 2), ((1500, 1460, 40), 4), ((5000, 5000, 3000), 30)]
)
def test_a_class_may_not_lose_more(examples: tuple[int, int, int], loss: int) -> None:
    judgement = judged(examples, {2: loss})
    assert judgement.worst.name == "rare" and len(judgement.failures) == 1 and judgement.points_lost <= 0.5


def test_where_answers_flip_both_ways_a_class_loses_its_share_of_them() -> None:
    """Of a model that is unsure, int8 changes answers of all classes; accuracy stays."""
    judgement = judged((1000, 1000, 50), {0: 20, 1: 20, 2: 2}, gained=40)
    assert judgement.points_lost == pytest.approx(100 * 2 / 2050) and judgement.failures == ()


def test_equal_accuracy_with_other_answers_fails() -> None:
    judgement = judged((1000, 500, 500), {0: 60}, gained=60)
    assert judgement.points_lost == 0 and judgement.agreement == 0.94
    (failure,) = judgement.failures
    assert "120 of 2000 answers are others (94.00% are equal), and 100 may be" in failure
    assert judged((1000, 500, 500), {0: 60}, gained=60, tolerance=1).failures == ()


def test_what_is_lost_in_all_fails_and_says_the_numbers() -> None:
    (failure,) = judged((400, 400, 200), {0: 3, 1: 3}).failures
    assert (
        "0.60 points of accuracy (100.00% to 99.40% on 1000 examples), above the tolerance of 0.5" in failure
    )


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_finite_fail_whatever_they_would_be(wrong: float) -> None:
    targets = np.repeat(np.arange(3), (98, 51, 51))
    logits = logits_of(targets)
    logits[0, 0] = wrong
    judgement = judge(logits, logits_of(targets), targets, CLASSES, 100)
    assert judgement.not_finite == 1 and judgement.int8_accuracy == 199 / 200
    assert judgement.failures == ("1 of 200 answers are not finite",)


def test_a_class_without_a_test_example_is_named_and_not_judged() -> None:
    judgement = judged((30, 0, 30), {})
    assert judgement.unseen == ("second",) and [each.name for each in judgement.classes] == ["common", "rare"]
    assert judgement.failures == ()


def test_a_tolerance_of_0_accepts_equal_accuracy_and_no_less() -> None:
    assert judged((300, 300, 300), {}, tolerance=0).failures == ()
    assert judged((300, 300, 300), {1: 1}, gained=1, tolerance=0).failures == ()
    assert len(judged((300, 300, 300), {1: 1}, tolerance=0).failures) == 1


def test_a_tolerance_of_100_accepts_whatever_is_finite() -> None:
    assert judged((300, 300, 300), {0: 300, 1: 300, 2: 300}, tolerance=100).failures == ()


def test_few_test_examples_are_not_refused_for_one_answer_that_was_wrong_before() -> None:
    targets = np.array([0, 0, 1, 1, 2, 2])
    before, after = np.array([0, 1, 1, 1, 2, 2]), np.array([0, 2, 1, 1, 2, 2])
    assert judge(logits_of(after), logits_of(before), targets, CLASSES, 0.5).failures == ()


@pytest.mark.parametrize("examples", [1, 3, 8, 50, 400])
@pytest.mark.parametrize("rate", [0.001, 0.005, 0.02, 0.5])
@pytest.mark.parametrize("chance", [0.05, 0.005, 5e-5])
def test_the_bound_is_that_of_the_binomial_distribution(examples: int, rate: float, chance: float) -> None:
    terms = [
        math.comb(examples, count) * rate**count * (1 - rate) ** (examples - count)
        for count in range(examples + 1)
    ]
    expected = next(count for count in range(examples + 1) if math.fsum(terms[count + 1 :]) < chance)
    assert most_by_chance(examples, rate, chance) == expected


def test_the_bound_is_known_for_very_many_examples() -> None:
    assert 5000 < most_by_chance(1_000_000, 0.005, 0.005) < 5250
    assert most_by_chance(1_000_000, 0, 0.005) == 0 and most_by_chance(7, 1, 0.005) == 7
