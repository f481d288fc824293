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
    table = CliRunner().invoke(app, ["bench", "poison", "--quick"])
    assert table.exit_code == 0 and "points lost at most" in table.stdout
