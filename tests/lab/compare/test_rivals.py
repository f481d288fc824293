"""WASH beside its rivals: differences seed by seed, over the seeds that both have."""

import math
from pathlib import Path

import pytest

from tests.lab.compare.made_up import comparison, forget, products
from wash_fl.lab.compare.rivals import rivals

WASH = products(0.90, 0.80, 0.70, bytes=10.0)


def test_a_gain_is_taken_seed_by_seed_so_what_a_seed_does_to_both_is_not_its_error(tmp_path: Path) -> None:
    (found,) = rivals(comparison(tmp_path, {"wash": WASH, "fedavg": products(0.89, 0.79, 0.69, bytes=40.0)}))
    assert found.gain.mean == pytest.approx(0.01) and found.gain.error == pytest.approx(0.0, abs=1e-9)
    assert found.texts() == ("fedavg", "+1.00 ± 0.00", "3 of 3 seeds", "0.25 of its")
    told = found.to_json()
    assert (told["beside"], told["better"], told["seeds"], told["bytes"]) == ("fedavg", 3, 3, 0.25)


def test_one_that_is_better_with_some_seeds_or_sends_nothing_is_said_so(tmp_path: Path) -> None:
    rows = {"isolated": products(0.95, 0.75, 0.70, bytes=0.0), "wash": WASH, "wash paper": WASH}
    isolated, paper = rivals(comparison(tmp_path, rows))
    assert isolated.better == 1 and isolated.bytes is None
    assert isolated.texts()[2:] == ("1 of 3 seeds", "it sends none")
    # Differences -0.05, 0.05 and 0: their deviation is 0.05.
    assert isolated.gain.error == pytest.approx(0.05 / math.sqrt(3))
    assert paper.texts() == ("wash schedule=paper", "+0.00 ± 0.00", "0 of 3 seeds", "1 of its")


def test_only_seeds_that_both_have_are_counted(tmp_path: Path) -> None:
    folder = comparison(tmp_path, {"wash": WASH, "fedavg": products(0.8, 0.8, 0.8)})
    for seed in (1, 2):
        folder = forget(folder, "fedavg", seed)
    (found,) = rivals(folder)
    assert found.texts()[1:3] == ("+10.00 (one seed)", "1 of 1 seeds")
    assert found.to_json()["error"] is None
    assert rivals(forget(folder, "fedavg", 0)) == []


def test_without_wash_there_is_nobody_to_be_beside(tmp_path: Path) -> None:
    assert rivals(comparison(tmp_path, {"fedavg": products(0.9, 0.9, 0.9)})) == []
