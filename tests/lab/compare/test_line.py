"""The barrier between two models is how far the loss lies above the line between its ends."""

import numpy as np
import pytest

from wash_fl.core.rules import Rule, SpectralNorm, StateRules
from wash_fl.lab.compare.line import Line, between


def test_a_hill_between_two_models_is_a_barrier_and_a_valley_is_none():
    places = (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Line(places, [1.0, 2.0, 3.0, 2.0, 2.0], [0.0] * 5).barrier == pytest.approx(1.5)
    assert Line(places, [1.0, 0.5, 0.2, 0.5, 1.0], [0.0] * 5).barrier == pytest.approx(-0.5)


def test_the_models_between_are_mixtures_and_integers_those_of_the_first():
    seen = []

    def evaluate(weights):
        seen.append(weights)
        return float((weights["w"] ** 2).sum()), 0.5

    first = {"w": np.zeros(2, np.float32), "n": np.array(3)}
    second = {"w": np.full(2, 4, np.float32), "n": np.array(9)}
    rules = StateRules.of({"w": Rule.TRAINED, "n": Rule.COUNTER})
    line = between(first, second, rules, lambda weights: weights, evaluate)
    assert [each["w"][0] for each in seen] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [int(each["n"]) for each in seen] == [3, 3, 3, 3, 9], "at the ends are the models themselves"
    assert all(each["w"].dtype == np.float32 for each in seen)
    assert line.losses == [0.0, 2.0, 8.0, 18.0, 32.0]


def test_what_has_no_mean_is_the_firsts_between_and_a_spectral_norm_is_recomputed():
    seen = []

    def evaluate(weights):
        seen.append(weights)
        return 0.0, 0.5

    def model(scale, turn, quantile):
        u = np.array([np.cos(turn), np.sin(turn)], np.float32)
        weight = np.diag([scale, 1.0]).astype(np.float32)
        mask = np.array([0.0, -np.inf], np.float32)
        return {"w": weight, "tied": weight, "u": u, "v": u, "q": np.float32([quantile]), "mask": mask}

    kinds = {"w": Rule.TRAINED, "u": Rule.SPECTRAL, "v": Rule.SPECTRAL, "q": Rule.MEMBER, "mask": Rule.MEMBER}
    rules = StateRules(
        kinds,
        {**{name: name for name in kinds}, "tied": "w"},
        (SpectralNorm("w", "u", "v", 0, 1e-12),),
    )
    between(model(2.0, 0.7, 5.0), model(4.0, -0.7, 9.0), rules, lambda weights: weights, evaluate)
    assert [each["q"][0] for each in seen] == [5, 5, 5, 5, 9]
    for each in seen[1:-1]:
        assert abs(each["u"][0]) == pytest.approx(1.0, abs=1e-6)
        assert each["tied"] is each["w"] and each["mask"].tolist() == [0.0, -np.inf]
