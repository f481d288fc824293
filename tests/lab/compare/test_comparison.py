"""A comparison on disk: gone on with, never trained twice, the same figures again; wrong input is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.lab.compare.made_up import forget
from wash_fl.cli.main import app
from wash_fl.errors import ConfigError, DataError
from wash_fl.lab.compare import comparison as module
from wash_fl.lab.compare.comparison import Comparison, Folder, Variant, variants_of
from wash_fl.lab.compare.row import Row, run_row
from wash_fl.lab.compare.table import table

OPTIONS: dict[str, Any] = {
    "members": 2,
    "rounds": 2,
    "local-steps": 2,
    "batch-size": 8,
    "train-examples": 100,
    "test-examples": 50,
}
SMALL = Comparison(OPTIONS, variants_of(["wash", "isolated"], [], []), (0, 1))


def run(folder: Folder, workers: int = 1) -> list[str]:
    """Run what is missing; return what was trained."""
    done: list[str] = []
    folder.run(workers=workers, on_row=lambda variant, seed, figures: done.append(f"{variant.name} {seed}"))
    return done


def trained(figures: dict[str, Any]) -> dict[str, Any]:
    """Return what is the same again on the same kind of machine."""
    return {name: value for name, value in figures.items() if name not in ("seconds", "machine")}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder.begin(tmp_path_factory.mktemp("comparison") / "one", SMALL)
    assert run(folder) == ["wash 0", "isolated 0", "wash 1", "isolated 1"]
    return folder


def test_a_row_has_all_that_is_measured_and_is_the_same_again(done: Folder) -> None:
    found = done.figures(Variant("wash"), 1)
    assert found is not None
    accuracy = found["accuracy"]
    assert accuracy.keys() == {
        *("members", "member", "ensemble", "averaged", "recalibrated", "soup", "product"),
    }
    assert all(0 <= accuracy[name] <= 1 for name in accuracy.keys() - {"members"})
    assert len(accuracy["members"]) == 2 and len(found["distance"]) == 2
    assert 0 < found["bytes"]["up_values"] < found["bytes"]["up_messages"]
    assert found["lines"].keys() == {"members", "mean"}
    assert (
        found["machine"]["cpu"] and found["machine"]["versions"]["torch"] and found["machine"]["instructions"]
    )
    again = run_row(Row("wash", 1, OPTIONS))
    assert trained(json.loads(json.dumps(again))) == trained(found)


def test_what_is_done_is_not_trained_again_and_what_is_lost_is(done: Folder) -> None:
    assert run(Folder.begin(done.path, SMALL)) == []
    before = done.figures(Variant("isolated"), 0)
    forget(done, "isolated", 0)
    again = Folder.begin(done.path, SMALL)
    assert run(again) == ["isolated 0"]
    after = again.figures(Variant("isolated"), 0)
    assert before is not None and after is not None
    assert trained(after) == trained(before)


def test_methods_and_seeds_may_be_added(done: Folder) -> None:
    more = Folder.begin(done.path, Comparison(OPTIONS, (Variant("fedavg"),), (0,)))
    assert {variant.name for variant, _ in more.missing()} == {"fedavg"}
    assert len(more.missing()) == 2
    Folder.begin(done.path, SMALL)
    assert [each.name for each in Folder.open(done.path).comparison.variants] == [
        "wash",
        "isolated",
        "fedavg",
    ]


def test_another_folders_options_or_files_are_refused(done: Folder, tmp_path: Path, refused: Any) -> None:
    other = Comparison({**OPTIONS, "rounds": 3}, SMALL.variants, SMALL.seeds)
    with refused(ConfigError, "rows of other options", "rounds: 2 there, 3 here"):
        Folder.begin(done.path, other)
    (tmp_path / "mine.txt").write_text("x")
    with refused(DataError, "files that are of no comparison"):
        Folder.begin(tmp_path, SMALL)
    with refused(DataError, "holds no comparison"):
        Folder.open(tmp_path)
    (tmp_path / "comparison.json").write_text("{}")
    with refused(DataError, "cannot be read"):
        Folder.open(tmp_path)


def test_a_damaged_row_is_named(done: Folder, refused: Any) -> None:
    path = done.path / "rows.jsonl"
    content = path.read_text()
    first, second, *rest = content.splitlines(keepends=True)
    for damaged in (first + second[:100] + "\n", first + "[]\n", first + "{}\n", first + "null\n"):
        path.write_text(damaged + "".join(rest))
        with refused(DataError, str(path), "line 2", "remove it"):
            Folder.open(done.path)
    path.write_text(content + first)
    with refused(DataError, str(path), "stands in this file twice"):
        Folder.open(done.path)
    path.write_text(content)


def test_a_row_that_is_trained_again_changes_one_line(done: Folder) -> None:
    path = done.path / "rows.jsonl"
    before = path.read_text().splitlines()
    assert len(before) == 4
    figures = done.figures(Variant("wash"), 0)
    assert figures is not None
    done.put([(Variant("wash"), 0, {**figures, "seconds": -1.0})])
    after = path.read_text().splitlines()
    done.put([(Variant("wash"), 0, figures)])
    assert sum(one != two for one, two in zip(before, after, strict=True)) == 1
    assert path.read_text().splitlines() == before


def test_rows_that_another_command_has_added_are_kept(done: Folder, tmp_path: Path) -> None:
    mine, other = (Folder.begin(tmp_path / "both", SMALL) for _ in range(2))
    for folder, pair in ((mine, (Variant("wash"), 0)), (other, (Variant("isolated"), 1))):
        folder.put([(*pair, done.figures(*pair) or {})])
    assert len(Folder.open(tmp_path / "both").missing()) == 2


def test_comparisons_are_shown_together_over_all_their_seeds(done: Folder, tmp_path: Path) -> None:
    more = Folder.begin(tmp_path / "more", Comparison(OPTIONS, (Variant("wash"), Variant("fedavg")), (7,)))
    figures = done.figures(Variant("wash"), 0)
    assert figures is not None
    more.put([(Variant("wash"), 7, figures), (Variant("fedavg"), 7, figures)])
    both = Folder.together([done.path, more.path])
    lines = {line.variant.name: line.seeds for line in table(both)}
    assert lines["wash"] == 3 and lines["isolated"] == 2 and lines["fedavg"] == 1
    assert table(Folder.together([done.path, done.path])) == table(done)


def test_comparisons_that_do_not_belong_together_are_refused(
    done: Folder, tmp_path: Path, refused: Any
) -> None:
    other = Folder.begin(tmp_path / "other", Comparison({**OPTIONS, "rounds": 3}, (Variant("wash"),), (0,)))
    with refused(ConfigError, "rounds: 2", "only rows of the same"):
        Folder.together([done.path, other.path])
    again = Folder.begin(tmp_path / "again", SMALL)
    figures = done.figures(Variant("wash"), 0)
    assert figures is not None
    again.put([(Variant("wash"), 0, {**figures, "sha256": "another"})])
    with refused(DataError, "the row 'wash' of seed 0", "not of the same weights"):
        Folder.together([done.path, again.path])


def test_two_processes_give_what_one_does(done: Folder, tmp_path: Path) -> None:
    folder = Folder.begin(tmp_path / "two", SMALL)
    assert sorted(run(folder, workers=2)) == ["isolated 0", "isolated 1", "wash 0", "wash 1"]
    for pair in SMALL.pairs():
        one, two = done.figures(*pair), folder.figures(*pair)
        assert one is not None and two is not None
        assert trained(one) == trained(two)


def test_an_interruption_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder.begin(tmp_path / "cut", SMALL)
    train = module.run_row

    def until_the_second(row: Row) -> dict[str, Any]:
        if row.method == "isolated":
            raise KeyboardInterrupt
        return train(row)

    monkeypatch.setattr(module, "run_row", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    monkeypatch.undo()
    assert run(folder) == ["isolated 0", "wash 1", "isolated 1"]


def test_members_that_are_trained_alike_are_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noting(row: Row) -> dict[str, Any]:
        asked.append(row.method)
        return run_row(row)

    monkeypatch.setattr(module, "run_row", noting)
    both = Comparison(OPTIONS, variants_of(["greedy-soup", "wash", "isolated"], [], []), (0,))
    folder = Folder.begin(tmp_path / "both", both)
    assert run(folder) == ["greedy-soup 0", "isolated 0", "wash 0"]
    assert asked == ["greedy-soup", "wash"]
    for method in ("greedy-soup", "isolated"):
        own = run_row(Row(method, 0, OPTIONS))
        assert trained(folder.figures(Variant(method), 0) or {}) == trained(json.loads(json.dumps(own)))
    folder = forget(folder, "greedy-soup", 0)
    before = folder.figures(Variant("isolated"), 0)
    assert run(folder) == ["greedy-soup 0"]
    assert asked == ["greedy-soup", "wash"]
    assert folder.figures(Variant("isolated"), 0) == before


def test_the_table_has_mean_and_spread_over_the_seeds(done: Folder) -> None:
    line = table(done)[0]
    rows = [done.figures(Variant("wash"), seed) for seed in (0, 1)]
    values = [row["accuracy"]["product"] for row in rows if row is not None]
    assert line.variant.name == "wash" and line.seeds == 2
    assert line.accuracy["product"].mean == pytest.approx(sum(values) / 2)
    assert line.accuracy["product"].deviation == pytest.approx(abs(values[0] - values[1]) / 2**0.5)


def test_options_and_dropout_are_varied_together() -> None:
    names = [each.name for each in variants_of(["wash"], ["local-steps=1,8", "dtype=int8"], [0.0, 0.2])]
    assert names == [
        "wash local-steps=1 dtype=int8",
        "wash local-steps=1 dtype=int8 dropout=0.2",
        "wash local-steps=8 dtype=int8",
        "wash local-steps=8 dtype=int8 dropout=0.2",
    ]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--methods", "wahs"], ["no method 'wahs'", "fedavg"]),
        (["--methods", "wash,wash"], ["wash is asked for twice"]),
        (["--vary", "rounds"], ["'rounds' is nothing to vary"]),
        (["--vary", "round=1,2"], ["unknown option 'round'", "Did you mean rounds?"]),
        (["--seeds", "a"], ["seeds = 'a'", "numbers"]),
        (["--dropout", "1.5"], ["dropout = 1.5", "below 1"]),
        (["--p", "7"], ["p = 7.0", "at most 1"]),
        (["--seed", "7"], ["several seeds", "--seeds"]),
        (
            ["--methods", "fedavg,papa", "--vary", "bits=8"],
            ["bits is no option of the method papa", "fedavg, fedavg-outer-step only"],
        ),
        (["--methods", "fedavg", "--vary", "bits=7"], ["bits = 7", "one of 32, 8, 4, 3, 2"]),
        (["--vary", "seed=1,2"], ["several seeds", "--seeds"]),
        (["--methods", "sparta", "--schedule", "size-aware"], ["sparta", "defined by schedule = constant"]),
        (["--methods", "dart", "--vary", "augment=none,grid"], ["dart", "defined by augment = grid"]),
    ],
)
def test_wrong_input_is_refused_before_anything_is_made(
    tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    said = CliRunner().invoke(app, ["compare", "-o", str(tmp_path / "x"), *arguments])
    assert said.exit_code != 0 and isinstance(said.exception, ConfigError)
    assert all(part in str(said.exception) for part in parts), said.exception
    assert not (tmp_path / "x").exists()


def test_the_command_prints_json_and_the_table_without_training(done: Folder) -> None:
    said = CliRunner().invoke(app, ["compare", "-o", str(done.path), "--table", "--json"])
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    lines = told["lines"]
    assert [each["beside"] for each in told["rivals"]] == ["isolated"] == [lines[1]["variant"]["method"]]
    assert [line["variant"]["method"] for line in lines][:2] == ["wash", "isolated"]
    shown = CliRunner().invoke(app, ["compare", "-o", str(done.path), "--table"])
    assert "isolated" in shown.output
    written = CliRunner().invoke(app, ["compare", "-o", str(done.path), "--table", "--markdown"])
    assert "| isolated |" in written.output and "one basin" in written.output
    assert "| WASH beside |" in written.output and "| it sends none |" in written.output
