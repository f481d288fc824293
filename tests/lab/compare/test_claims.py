"""A claim is answered by the seeds: yes or no where they tell, and neither where they do not."""

from pathlib import Path

import pytest

from tests.lab.compare.made_up import comparison, products
from wash_fl.lab.compare.claims import NO, OPEN, YES, answers, judged
from wash_fl.lab.compare.comparison import Folder
from wash_fl.lab.compare.difference import Difference


def verdicts(folder: Folder) -> dict[str, str]:
    return {each.claim.split()[0]: each.verdict for each in answers(folder)}


WASH, ISOLATED, PAPA, OPT = ("wash", "isolated", "papa", "wash-opt")


@pytest.mark.parametrize(
    ("averaged", "verdict"),
    [((0.90, 0.91, 0.905), YES), ((0.80, 0.81, 0.80), NO), ((0.88, 0.92, 0.89), OPEN)],
)
def test_averaged_close_to_ensemble(tmp_path: Path, averaged: tuple[float, ...], verdict: str) -> None:
    rows = {WASH: products(*averaged), ISOLATED: products(0.5, 0.5, 0.5, ensemble=0.9)}
    (answer,) = [each for each in answers(comparison(tmp_path, rows)) if "ensemble of isolated" in each.claim]
    assert answer.verdict == verdict, answer


@pytest.mark.parametrize(
    ("barriers", "verdict"),
    [((0.0, -0.01, 0.001), YES), ((0.5, 0.6, 0.4), NO), ((0.0, 0.0, 0.08), OPEN)],
)
def test_one_basin(tmp_path: Path, barriers: tuple[float, ...], verdict: str) -> None:
    folder = comparison(tmp_path, {WASH: [{"barrier": each} for each in barriers]})
    (answer,) = answers(folder)
    assert "one basin" in answer.claim and answer.verdict == verdict, answer


@pytest.mark.parametrize(
    ("constant", "increasing", "verdict"), [(0.88, 0.85, YES), (0.92, 0.85, NO), (0.9, 0.85, OPEN)]
)
def test_depth(tmp_path: Path, constant: float, increasing: float, verdict: str) -> None:
    rows = {
        WASH: products(0.90, 0.901, 0.899),
        "wash constant": products(constant, constant, constant + 0.001),
        "wash increasing": products(increasing, increasing, increasing),
    }
    (answer,) = [each for each in answers(comparison(tmp_path, rows)) if "depth" in each.claim]
    assert answer.verdict == verdict, answer


def test_one_seed_answers_nothing() -> None:
    alone = Difference((0.05,))
    assert judged(alone) == judged(alone, at_least=0.9) == OPEN
    assert str(alone) == "+0.0500 (one seed)" and str(Difference((-0.012, -0.008))) == "-0.0100 ± 0.0020"


def test_depth_is_judged_at_equal_bytes_only(tmp_path: Path) -> None:
    rows = {
        WASH: products(0.90, 0.901, 0.899, bytes=45.0),
        "wash constant": products(0.88, 0.88, 0.88),
        "wash increasing": products(0.85, 0.85, 0.85),
    }
    assert not [each for each in answers(comparison(tmp_path, rows)) if "depth" in each.claim]


def test_bytes_beside_papa(tmp_path: Path) -> None:
    as_good = {WASH: products(0.9, 0.9, 0.9, bytes=10.0), PAPA: products(0.9, 0.9, 0.9)}
    assert verdicts(comparison(tmp_path / "a", as_good))["WASH"] == YES
    worse = {WASH: products(0.8, 0.8, 0.8, bytes=10.0), PAPA: products(0.9, 0.9, 0.9)}
    assert verdicts(comparison(tmp_path / "b", worse))["WASH"] == NO
    more = {WASH: products(0.9, 0.9, 0.9, bytes=200.0), PAPA: products(0.9, 0.9, 0.9)}
    assert verdicts(comparison(tmp_path / "c", more))["WASH"] == NO


def test_nothing_is_said_beside_a_papa_that_never_averaged(tmp_path: Path) -> None:
    rows = {WASH: products(0.9, 0.9, 0.9), PAPA: products(0.9, 0.9, 0.9, bytes=0.0)}
    assert "WASH" not in verdicts(comparison(tmp_path, rows))


def test_the_optimizers_state(tmp_path: Path) -> None:
    rows = {WASH: products(0.9, 0.9, 0.9), OPT: products(0.92, 0.921, 0.919)}
    assert verdicts(comparison(tmp_path, rows))["WASH+Opt"] == YES


def test_nothing_is_said_to_claims_without_rows(tmp_path: Path) -> None:
    assert answers(comparison(tmp_path, {ISOLATED: products(0.9, 0.9, 0.9)})) == []
