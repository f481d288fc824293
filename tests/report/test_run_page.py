"""The page of a run: its answer first, all of it in one file, and what a client says is only text."""

import re
from html import unescape
from pathlib import Path

import pytest

from wash_fl.report.run_page import LONG, run_page
from wash_fl.runs.folder import EXCHANGES, METRICS, MODEL
from wash_fl.runs.record import RunRecord

pytest.importorskip("matplotlib")

EVIL = "<script>alert(1)</script>"


def page_of(path: Path) -> str:
    return run_page(RunRecord.read(path)).html()


def text_of(markup: str) -> str:
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", markup, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(text))


def answer_of(markup: str) -> str:
    (answer,) = re.findall(r'<div class="answer">(.*?)</div>', markup, re.DOTALL)
    return text_of(answer)


def rows_of(markup: str, heading: str) -> list[list[str]]:
    table, _, _ = markup.partition(f"<h2>{heading}</h2>")[2].partition("</table>")
    cells = re.compile(r"<t[hd].*?>(.*?)</t[hd]>", re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [[text_of(cell).strip() for cell in cells.findall(row)] for row in rows]


def test_the_answer_has_the_accuracies_the_bytes_who_is_missing_and_the_file(make_run):
    answer = answer_of(page_of(make_run().path))
    assert answer.startswith(" The averaged model answers 79.25% of the test data right.")
    assert "The ensemble of its 2 members: 81.25%." in answer
    assert "A member alone: 73.00% on average (71.00% to 75.00%)." in answer
    # All three have sent, and two have sent their model.
    assert "Each member sent 1.2 MB up while training, 1 MB of it values," in answer
    assert "and its model (95 kB) once at the end." in answer
    assert "Not in the average : member 2 (given up: it was away too long)." in answer
    assert "model.onnx : 7 B, 99.75% equal answers to PyTorch's, largest difference 1.5e-06" in answer
    assert RunRecord.read(make_run("two").path).model.sha256 in answer  # type: ignore[union-attr]


def test_a_run_that_lost_nobody_says_so(make_run):
    answer = answer_of(page_of(make_run(summary={"left_out": {}}).path))
    assert "All 2 members are in the average." in answer and "Not in the average" not in answer


def test_the_answer_is_first_then_the_curves_the_members_and_the_options(make_run):
    markup = page_of(make_run().path)
    places = [markup.index(each) for each in ('class="answer"', "<h2>Curves", "<h2>Members", "<h2>Options")]
    assert places == sorted(places)
    first, second = markup.index("<svg"), markup.rindex("<svg")
    assert places[1] < first < second < places[2] and markup.count("<svg") == 3


def test_each_member_has_its_row(make_run):
    head, *rows = rows_of(page_of(make_run().path), "Members")
    assert head[:4] == ["member", "test accuracy", "averaged", "rounds"]
    assert head[4:] == ["exchanges", "up", "of it values", "down", "last loss"]
    assert rows == [
        ["0", "71.00%", "yes", "4", "4", "4.4 kB", "4 kB", "2.2 kB", "0.25"],
        ["1", "75.00%", "yes", "4", "4", "8.8 kB", "8 kB", "2.64 kB", "0.25"],
        ["2", "22.00%", "no", "2", "0", "28 B", "0 B", "32 B", "0.5"],
    ]


def test_options_that_are_not_the_defaults_come_before_all_options(make_run):
    markup = page_of(make_run(dtype="int8", **{"exchange-optimizer": True}).path)
    assert rows_of(markup, "Options") == [
        ["option", "value", "default"],
        ["members", "3", "4"],
        ["rounds", "4", "30"],
        ["recipe", "none", "auto"],
        ["mix", "average", "auto"],
        ["topology", "all", "auto"],
        ["exchange-optimizer", "yes", "no"],
        ["dtype", "int8", "float32"],
        ["reference", "values", "auto"],
    ]
    everything = text_of(markup.split("<summary>All options</summary>")[1])
    assert "calibration-examples" in everything and "run-dir" not in everything


def test_what_a_client_or_a_user_names_is_only_text(make_run):
    named = {"members": {"0": {"accuracy": 0.5, EVIL: 1.0}}, "set_aside": {"1": EVIL}}
    # As a folder's name it may hold no slash.
    folder = make_run("<script>x", changed={4: named}, summary={"left_out": {"1": EVIL}}, task=f"/{EVIL}.py")
    markup = page_of(folder.path)
    folder.log("failed", reason=EVIL)
    (folder.path / "summary.json").unlink()
    unfinished = page_of(folder.path)
    for each, times in ((markup, 3), (unfinished, 4)):
        assert "<script" not in each
        assert each.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= times


@pytest.mark.parametrize("finished", [True, False])
def test_the_page_is_one_file_and_the_same_each_time(make_run, finished):
    folder = make_run(finished=finished)
    markup = page_of(folder.path)
    assert "://" not in markup and "@import" not in markup and "<script" not in markup
    assert not re.search(r"\ssrc=|srcset=|<link|<iframe|<object|<embed", markup)
    assert all(each.startswith("#") for each in re.findall(r"(?:href=\"|url\(['\"]?)([^\")]*)", markup))
    assert page_of(folder.path) == markup
    identifiers = re.findall(r'\sid="([^"]+)"', markup)
    assert len(identifiers) == len(set(identifiers)) > 0


def test_an_unfinished_run_says_so_and_how_far_it_came(make_run):
    folder = make_run(rounds=2, finished=False)
    answer = answer_of(page_of(folder.path))
    assert answer.startswith(
        " This run is not finished : 2 of 4 rounds are done, and there is no averaged model."
    )
    assert "In round 2 the members alone answered 20.00% to 22.00%" in answer
    assert "Each member sent 600 kB up while training, 500 kB of it values." in answer
    assert "stopped" not in answer and "in the average" not in answer and "onnx" not in answer
    folder.log("failed", reason="no member is left.")
    assert "It stopped: no member is left." in answer_of(page_of(folder.path))


def test_a_run_without_any_round_and_one_without_optional_files_have_a_page(make_run):
    markup = page_of(make_run("none", rounds=0, finished=False).path)
    assert "0 of 4 rounds are done" in answer_of(markup) and "<svg" not in markup
    assert "No round is on record." in markup and "No member has reported yet." in markup
    folder = make_run("bare")
    for name in (METRICS, EXCHANGES, MODEL):
        (folder.path / name).unlink()
    markup = page_of(folder.path)
    assert "79.25%" in answer_of(markup) and "There is no model.onnx" in answer_of(markup)
    assert rows_of(markup, "Members")[1] == ["0", "71.00%", "yes", "0"]


def test_the_page_of_a_large_ensemble_folds_its_members(make_run):
    many = {"members": {str(member): {"accuracy": 0.5} for member in range(LONG + 1)}}
    few, large = page_of(make_run("few").path), page_of(make_run("large", changed={1: many}).path)
    assert f"<summary>All {LONG + 1} members</summary>" in large
    assert few.count("<details>") == 1 and large.count("<details>") == 2
