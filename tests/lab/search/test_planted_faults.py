"""Whatever would lose or make a value is found: each fault by an example that is known to find it."""

import json

import pytest

from tests.lab.search.planted import FOUND, PLANTED, WITHIN, planted
from wash_fl.lab.bench import faults

EXAMPLES = json.loads(FOUND.read_text())


def test_every_planted_fault_has_an_example_that_finds_it():
    assert EXAMPLES.keys() == PLANTED.keys() and len(PLANTED) >= 40
    assert all(type(each) is int and 0 <= each < WITHIN for each in EXAMPLES.values())


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name):
    with planted(name):
        figures = faults.run(1, seed=PLANTED[name].seed, first=EXAMPLES[name], workers=1)
    assert figures["violations"] == 1


def test_the_same_examples_find_nothing_where_nothing_is_planted():
    for seed, example in sorted({(PLANTED[name].seed, example) for name, example in EXAMPLES.items()}):
        figures = faults.run(1, seed=seed, first=example, workers=1)
        assert figures["violations"] == 0, figures["violated"]
