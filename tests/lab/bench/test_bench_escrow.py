"""The bench of the escrow measures what it says; how long things take is the machine's affair."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.config import FleetConfig
from wash_fl.core import mix
from wash_fl.lab.bench import escrow
from wash_fl.protocol import escrow as room
from wash_fl.protocol import outliers

MEMBERS = (34, 51, 102)
VALUES = 2_000


@pytest.fixture
def small(monkeypatch):
    changes = {"MEMBERS": MEMBERS, "VALUES": VALUES, "REPEATS": 3, "QUICK_REPEATS": 2}
    for name, value in changes.items():
        monkeypatch.setattr(escrow, name, value)


def test_the_command_prints_every_figure_and_they_follow_from_the_seconds(small):
    result = CliRunner().invoke(app, ["bench", "escrow", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["bench"] == "escrow" and content["machine"]["cores"] >= 1
    assert (content["members"], content["values"], content["repeats"]) == (list(MEMBERS), VALUES, 2)
    assert content["bytes"] == 4 * MEMBERS[-1] * VALUES
    pairs, copy = content["pairs_seconds"], content["copy_seconds"]
    assert len(pairs) == 3 and min(copy, content["record_seconds"], content["words_seconds"], *pairs) > 0
    assert content["pairs_vs_copy"] == pytest.approx(copy / pairs[-1])
    assert content["permutation_vs_copy"] == pytest.approx(copy / content["permutation_seconds"])
    assert content["linearity"] == pytest.approx((pairs[-1] / MEMBERS[-1]) / (pairs[0] / MEMBERS[0]))
    assert content["memory_ratio"] == max(content["memory_ratio_by_topology"].values())


def test_without_quick_it_measures_as_often_as_it_says(small):
    assert escrow.run()["repeats"] == 3


def test_the_escrow_is_settled_whole_with_the_default_rule_and_all_members(small, monkeypatch):
    calls: list[tuple[int, float]] = []
    mixed: list[tuple[str, int]] = []

    def watched_rule(offers, factor, exact, parts, grain):
        calls.append((len(offers), factor))
        return outliers.find_outliers(offers, factor, exact, parts, grain)

    def watched_mix(offers, **options):
        mixed.append((options["config"].topology, len(offers)))
        return mix.mix(offers, **options)

    monkeypatch.setattr(room, "find_outliers", watched_rule)
    monkeypatch.setattr(room, "mix", watched_mix)
    escrow.run(quick=True)
    assert {factor for _, factor in calls} == {FleetConfig().outlier_factor} == {3.0}
    # A fleet of 102 is three of 34 or two of 51; twice each, and once more for the memory.
    assert mixed.count(("pairs", 34)) == 6 and mixed.count(("pairs", 51)) == 4
    assert mixed.count(("pairs", 102)) == mixed.count(("permutation", 102)) == 3


def test_the_memory_is_that_of_offers_and_what_is_made_of_them(small, monkeypatch):
    """Small values cost their share of fixed buffers, so the offers are of a megabyte or so here."""
    monkeypatch.setattr(escrow, "VALUES", 25_000)
    ratios = escrow.run(quick=True)["memory_ratio_by_topology"]
    assert 1.0 <= ratios["pairs"] < 1.6
    assert ratios["permutation"] >= 2.0
    wasteful = mix.permute
    monkeypatch.setattr(mix, "permute", lambda offers, **options: wasteful([*np.array(offers)], **options))
    assert escrow.run(quick=True)["memory_ratio"] >= 2.9


def test_the_members_of_the_fleet_are_like_trained_ones():
    """Apart, and not so much that anyone is suspicious: the rule is not what is measured."""
    fleet = escrow._fleet(40, 5_000)
    assert (fleet.shape, fleet.dtype) == ((40, 1, 5_000), np.float32)
    assert not outliers.suspicious(list(fleet), 10.0)
    common = fleet.mean(axis=0)
    assert 0.05 < np.linalg.norm(fleet[0] - common) / np.linalg.norm(common) < 0.5


def test_what_is_measured_is_a_thousand_members_of_25_000_values():
    assert escrow.MEMBERS == (100, 300, 1000) and escrow.VALUES == 25_000
    assert escrow._draw(escrow.VALUES).count(1) == 25_000
