"""The barrier between two models is how far the loss lies above the line between its ends."""

import numpy as np
import pytest

from wash_fl.compare.line import Line, between


def test_a_hill_between_two_models_is_a_barrier_and_a_valley_is_none():
    places = (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Line(places, [1.0, 2.0, 3.0, 2.0, 2.0], [0.0] * 5).barrier == pytest.approx(1.5)
    assert Line(places, [1.0, 0.5, 0.2, 0.5, 1.0], [0.0] * 5).barrier == pytest.approx(-0.5)


def test_the_models_between_are_mixtures_and_integers_stay():
    seen = []

    def evaluate(weights):
        seen.append(weights)
        return float((weights["w"] ** 2).sum()), 0.5

    first = {"w": np.zeros(2, np.float32), "n": np.array(3)}
    second = {"w": np.full(2, 4, np.float32), "n": np.array(9)}
    line = between(first, second, lambda weights: weights, evaluate)
    assert [each["w"][0] for each in seen] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert all(each["n"] == 3 and each["w"].dtype == np.float32 for each in seen)
    assert line.losses == [0.0, 2.0, 8.0, 18.0, 32.0]
