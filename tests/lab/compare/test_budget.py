"""A budget: each rule's choice is what is counted then, or its method says why it cannot meet it."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.errors import ConfigError
from wash_fl.lab.compare.budget import NEAR, OverBudgetError, Run, fedavg_bytes, near, nearest, times
from wash_fl.lab.compare.comparison import Comparison, Folder, Variant, variants_of
from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.post import Post
from wash_fl.lab.compare.table import budget_lines, part_of_fedavg, table
from wash_fl.lab.compare.within import within
from wash_fl.tasks.task import load_task

OPTIONS: dict[str, Any] = {
    "members": 2,
    "rounds": 20,
    "local-steps": 1,
    "batch-size": 2,
    "train-examples": 64,
    "test-examples": 20,
    "calibration-examples": 8,
}
SENDING = [name for name, method in METHODS.items() if method.fit is not None]


def counted(name: str, options: dict[str, Any]) -> float:
    """Train, and return what was sent as a part of FedAvg's bytes."""
    method = METHODS[name]
    config, knobs = method.settings(options)
    post = Post(config)
    cohort = method.make(config, load_task("digits"), 0.0, post, knobs)
    for number in range(1, config.training.rounds + 1):
        cohort.round(number)
    cohort.settle()
    post.finish()
    sent = post.per_member(config.training.members)
    size = sum(each.nbytes for each in cohort.weights(0).values())
    return (sent["up_packets"] + sent["down_packets"]) / fedavg_bytes(config.training.rounds, size)


def test_fedavg_itself_is_the_measure() -> None:
    assert counted("fedavg", {**OPTIONS, "rounds": 3}) == 1.0


@pytest.mark.parametrize("name", SENDING)
def test_what_a_rule_chooses_is_counted_within_five_percent_of_the_budget(name: str) -> None:
    (variant,), unable = within(0.05, OPTIONS, (Variant(name),), 0)
    assert not unable
    assert counted(name, {**OPTIONS, **variant.changes}) == pytest.approx(0.05, rel=NEAR)


@pytest.mark.parametrize("name", ["wash", "late", "sparta", "wash-opt"])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_slices_in_few_bits_have_as_many_bytes(name: str, dtype: str) -> None:
    own = {**OPTIONS, "dtype": dtype, "mix": "average"}
    (variant,), _ = within(0.1, own, (Variant(name),), 3)
    assert counted(name, {**own, **variant.changes, "seed": 7}) == pytest.approx(0.1, rel=NEAR)


@pytest.mark.parametrize(
    ("budget", "bits", "averages"), [(1.0, 32, 20), (0.3, 8, 24), (0.15, 4, 23), (0.05, 3, 10), (0.02, 3, 4)]
)
def test_fedavg_takes_its_bits_from_a_table_and_its_rounds_by_division(
    budget: float, bits: int, averages: int
) -> None:
    run = Run.of(METHODS["fedavg"].config({**OPTIONS, "local-steps": 4}))
    fit = METHODS["fedavg"].fit
    assert fit is not None and fit is METHODS["fedavg-outer-step"].fit
    choice = fit.choose(run, budget * run.fedavg_bytes)
    assert choice.changes == {"bits": bits, "every-rounds": pytest.approx(20 / averages, rel=1e-5)}


def test_who_cannot_meet_a_budget_says_why() -> None:
    own = {**OPTIONS, "rounds": 30}
    able, unable = within(0.05, own, variants_of(list(METHODS), [], []), 0)
    assert {each.method for each in able} == {
        *("fedavg", "fedavg-outer-step", "top-k", "wash", "wash-opt", "sparta", "early", "late"),
        *("recipe-frugal", "recipe-pairs", "recipe-wash"),
    }
    assert unable["isolated"] == "it sends nothing while it trains"
    assert unable["papa"] == "the nearest it can send is 0.0667 of FedAvg's bytes (every-rounds = 15)"
    assert unable["single-merge"] == "the nearest it can send is 0.0333 of FedAvg's bytes"
    fit = METHODS["top-k"].fit
    assert fit is not None
    with pytest.raises(OverBudgetError, match=r"of FedAvg's bytes \(top = 1\.0\)"):
        fit.to(Run.of(METHODS["top-k"].config(own)), 1.0)


def test_an_option_that_a_rule_chooses_is_refused(refused: Any) -> None:
    with refused(ConfigError, "p is given", "wash chooses it"):
        within(0.1, {**OPTIONS, "p": 0.2}, (Variant("wash"),), 0)
    with refused(ConfigError, "bits, every-rounds is given", "fedavg"):
        within(0.1, OPTIONS, (Variant("fedavg", {"every_rounds": 2, "bits": 8}),), 0)


def test_the_nearest_is_chosen_and_near_is_five_percent() -> None:
    assert nearest(30.0, 1.0, lambda value: 100 * value) == (0.3, pytest.approx(30.0))
    assert nearest(500.0, 1.0, lambda value: 100 * value) == (1.0, 100.0)
    assert near(0.0525, 0.05) and near(0.0475, 0.05)
    assert not near(0.0526, 0.05) and not near(0.0474, 0.05)
    run = Run.of(METHODS["fedavg"].config(OPTIONS))
    assert times(run, 7.4, 1.0).changes == {"every-rounds": pytest.approx(20 / 7, rel=1e-5)}
    assert times(run, 0.1, 1.0).bytes == 1.0 and times(run, 999.0, 1.0).bytes == 20.0


@pytest.mark.parametrize("text", ["0", "1.5", "text", "-0.1", "nan", "inf", ""])
def test_a_budget_that_is_no_part_is_refused_on_one_line(tmp_path: Path, text: str) -> None:
    said = CliRunner().invoke(app, ["compare", "-o", str(tmp_path / "x"), "--budget", text])
    assert isinstance(said.exception, ConfigError)
    message = str(said.exception)
    assert len(message.splitlines()) == 1 and f"budget = {text!r}" in message and "try 0.05" in message
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--dropout", "0.2"], "dropout does not go with budget"),
        (["--methods", "isolated"], "no method can meet the budget 0.05 (isolated: it sends nothing"),
        (["--methods", "wahs"], "no method 'wahs'"),
    ],
)
def test_what_does_not_go_with_a_budget_is_refused(tmp_path: Path, arguments: list[str], part: str) -> None:
    said = CliRunner().invoke(app, ["compare", "-o", str(tmp_path / "x"), "--budget", "0.05", *arguments])
    assert isinstance(said.exception, ConfigError) and part in str(said.exception)


def test_a_comparison_with_a_budget_shows_what_was_met_the_knobs_and_the_rules(
    tmp_path: Path, refused: Any
) -> None:
    variants, unable = within(0.05, OPTIONS, variants_of(["isolated", "fedavg", "wash"], [], []), 0)
    planned = Comparison(OPTIONS, variants, (0,), 0.05, unable)
    Folder.begin(tmp_path / "x", planned).run(workers=1, on_row=lambda variant, seed, figures: None)
    folder = Folder.open(tmp_path / "x")
    assert folder.comparison == planned and list(unable) == ["isolated"]
    for line in table(folder):
        assert line.of_fedavg is not None and near(line.of_fedavg.mean, 0.05) and line.knob
        assert part_of_fedavg(line, 0.05).startswith("0.0") and "missed" in part_of_fedavg(line, 0.5)
    told = budget_lines(folder)
    assert told[0].startswith("budget 0.05 of FedAvg's bytes") and "5%" in told[0]
    assert any(each.startswith("fedavg: bits by the budget") for each in told)
    assert told[-1] == "isolated cannot meet it: it sends nothing while it trains"
    said = CliRunner().invoke(app, ["compare", "--table", str(tmp_path / "x")])
    assert all(line.variant.name in said.stdout for line in table(folder))
    assert max(map(len, said.stdout.partition("fedavg every-rounds=2 bits=3:")[0].splitlines())) <= 80
    flat = " ".join(said.stdout.split())
    assert all(each in flat for each in told) and "3 bits" in flat
    shown = CliRunner().invoke(app, ["compare", "--table", "--markdown", str(tmp_path / "x")])
    assert "| WASH beside |" in shown.output and told[1] in shown.output
    other = Comparison(folder.comparison.options, (Variant("fedavg"),), (0,))
    with refused(ConfigError, "rows of the budget 0.05, and no budget is given"):
        Folder.begin(tmp_path / "x", other)
    assert Folder.begin(tmp_path / "x", folder.comparison).comparison == folder.comparison
