"""The median and the trimmed mean of the members."""

import numpy as np
import pytest

from wash_fl.config import fields
from wash_fl.core import robust
from wash_fl.core.robust import FINAL_AVERAGES, robust_mean


def values(members, shape=(7, 5)):
    draw = np.random.Generator(np.random.Philox(members))
    return [draw.normal(size=shape).astype(np.float32) for _ in range(members)]


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 8, 9])
def test_the_median_is_that_of_numpy(members):
    members_values = values(members)
    assert robust_mean(members_values, "median") == pytest.approx(
        np.median(np.float64(members_values), axis=0), abs=1e-15
    )


@pytest.mark.parametrize(("members", "away"), [(1, 0), (2, 0), (3, 1), (4, 1), (7, 1), (8, 2), (12, 3)])
def test_the_trimmed_mean_leaves_out_a_quarter_at_either_end(members, away):
    members_values = values(members)
    inner = np.sort(np.float64(members_values), axis=0)[away : members - away]
    assert robust_mean(members_values, "trimmed") == pytest.approx(inner.mean(axis=0), abs=1e-15)


@pytest.mark.parametrize("how", ["median", "trimmed"])
@pytest.mark.parametrize("piece", [1, 4, 10**6])
def test_it_depends_neither_on_the_order_nor_on_the_pieces(monkeypatch, how, piece):
    members_values = values(5)
    whole = robust_mean(members_values, how)
    monkeypatch.setattr(robust, "_COLUMNS", piece)
    assert (robust_mean(members_values[::-1], how) == whole).all()


@pytest.mark.parametrize("how", ["median", "trimmed"])
def test_one_of_four_moves_it_no_further_than_the_others_lie(how):
    members_values = values(4)
    members_values[2][:] = 1e30
    others = np.delete(np.array(members_values), 2, axis=0)
    result = robust_mean(members_values, how)
    assert ((others.min(axis=0) <= result) & (result <= others.max(axis=0))).all()


def test_a_single_number_has_a_mean():
    assert robust_mean([np.float32(1), np.float32(5), np.float32(2)], "median") == 2.0


def test_the_option_allows_just_these():
    assert fields()["final-average"].metadata["choices"] == FINAL_AVERAGES
