"""The bench of bad devices: what it trains, what it finds, and what happens without the rules."""

import json

import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.lab.bench import poison
from wash_fl.lab.bench.attacks import ATTACKS, HONEST

SHORT = {"rounds": 4, "local-steps": 12, "train-examples": 600, "test-examples": 200}
OF_EACH_KIND = ("offers times -8", "signs turned", "final model with noise", "statistics")


@pytest.fixture(scope="module")
def figures():
    return poison.run(recipes=["frugal"], fleets=[(4, 1)], attacks=OF_EACH_KIND, options=SHORT)


def test_every_attack_is_found_and_costs_little(figures):
    rows = {row["attack"]: row for row in figures["rows"]}
    assert list(rows) == [HONEST, *OF_EACH_KIND]
    assert all(rows[name]["found"] == 1 for name in OF_EACH_KIND)
    assert rows[HONEST]["accuracy"] > 0.8
    assert all(each < 5 for each in figures["most_lost"].values()), figures["most_lost"]
    assert figures["honest_left_out"] == 0
    json.dumps(figures)


def test_without_the_rules_the_same_attacks_ruin_the_model(figures):
    options = SHORT | {"outlier-factor": 0.0}
    open_ = poison.run(recipes=["frugal"], fleets=[(4, 1)], attacks=OF_EACH_KIND, options=options)
    assert all(row["found"] == 0 for row in open_["rows"])
    assert all(open_["most_lost"][name] > 20 for name in OF_EACH_KIND), open_["most_lost"]


@pytest.mark.long
@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_does_something(name):
    options = SHORT | {"outlier-factor": 0.0}
    figures = poison.run(recipes=["wash"], fleets=[(4, 1)], attacks=[name], options=options)
    honest, attacked = figures["rows"][0], figures["rows"][-1]
    assert (honest["accuracy"] != attacked["accuracy"]) == (name != HONEST)


def test_the_command_prints_figures_or_tables(monkeypatch, figures):
    calls = {}
    monkeypatch.setattr(poison, "run", lambda task, **options: calls.update(options, task=task) or figures)
    result = CliRunner().invoke(app, ["bench", "poison", "--quick", "--division", "dirichlet", "--json"])
    assert json.loads(result.stdout)["bench"] == "poison"
    assert calls["task"] == "digits" and calls["options"]["division"] == "dirichlet"
    assert calls["recipes"] == ("frugal",) and calls["fleets"] == [(4, 1)] and len(calls["attacks"]) > 10
    CliRunner().invoke(
        app, ["bench", "poison", "--robust", "median", "--attacks", "none, statistics", "--rounds", "3"]
    )
    assert calls["options"]["robust"] == "median" and calls["options"]["rounds"] == 3
    assert calls["recipes"] == ("frugal",) and calls["fleets"] == [(5, 1), (8, 2)]
    assert calls["attacks"] == ("none", "statistics")
    CliRunner().invoke(app, ["bench", "poison", "--recipes", "wash,pairs", "--fleets", "6:1,9:3"])
    assert calls["recipes"] == ("wash", "pairs") and calls["fleets"] == [(6, 1), (9, 3)]
    table = CliRunner().invoke(app, ["bench", "poison", "--quick"])
    assert table.exit_code == 0 and "points lost at most" in table.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--recipes", "frugal,none"], "recipes names 'none', which is none: there are frugal, wash, pairs"),
        (["--attacks", "spell"], "attacks names 'spell'"),
        (["--fleets", "4"], "fleets names '4': write members"),
        (["--fleets", "4:4"], "fleets names '4:4'"),
        (["--fleets", "4:1,x:1"], "fleets names 'x:1'"),
        (["--robust", "median", "--fleets", "4:1"], "robust = median needs five members or more"),
        (["--robust", "mode"], "robust = 'mode' is not allowed"),
    ],
)
def test_what_cannot_be_tried_is_refused_at_once(options, says):
    result = CliRunner().invoke(app, ["bench", "poison", *options])
    assert result.exit_code != 0 and says in str(result.exception or "") + result.output


def test_a_robust_mean_in_each_exchange_stands_what_nobody_screens():
    """The screen is off; without the robust mean the same offers leave chance."""
    options = SHORT | {"outlier-factor": 0.0, "robust": "trimmed"}
    figures = poison.run(recipes=["frugal"], fleets=[(5, 1)], attacks=["offers times -8"], options=options)
    assert figures["most_lost"]["offers times -8"] < 10 and figures["rows"][0]["accuracy"] > 0.75
