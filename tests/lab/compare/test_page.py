"""The page of a comparison: the answer first, figures of all that was varied, claims."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.cli.report import COMPARISON
from wash_fl.lab.compare.comparison import Comparison, Folder, Variant, variants_of
from wash_fl.lab.compare.figures import comparison_figures
from wash_fl.lab.compare.page import comparison_page
from wash_fl.lab.compare.rows import PLAN
from wash_fl.lab.compare.table import table

PRODUCT = {"isolated": 0.80, "fedavg": 0.90, "wash": 0.895}
BYTES = {"isolated": 0.0, "fedavg": 2e6, "wash": 1e5}


def figures(variant: Variant, seed: int) -> dict[str, Any]:
    product = PRODUCT[variant.method] + 0.01 * seed - 0.1 * variant.dropout
    names = ("product", "member", "averaged", "recalibrated", "soup")
    return {
        "accuracy": dict.fromkeys(names, product) | {"ensemble": 0.91, "members": [product, product]},
        "bytes": {
            "up_values": BYTES[variant.method],
            "up_messages": BYTES[variant.method] * 1.1,
            "down_values": BYTES[variant.method],
        },
        "distance": [0.1, 0.2, 0.15],
        "lines": {
            "members": {
                "places": [0.0, 0.25, 0.5, 0.75, 1.0],
                "losses": [0.3, 0.31, 0.32, 0.31, 0.3],
                "barrier": 0.02,
            }
        },
        "seconds": 3.0,
    }


def made(path: Path, variants: tuple[Variant, ...], *, done: int = 2) -> Folder:
    folder = Folder.begin(path, Comparison({"members": 2, "rounds": 3}, variants, (0, 1)))
    for seed in range(done):
        for variant in variants:
            folder.put([(variant, seed, figures(variant, seed))])
    return folder


METHODS = variants_of(list(PRODUCT), [], [])


def test_the_answer_is_the_best_and_what_is_as_good_for_fewer_bytes(tmp_path: Path) -> None:
    page = comparison_page(made(tmp_path / "one", METHODS))
    text = page.html()
    answer = text[text.index('class="answer"') : text.index("<section>")]
    assert "<strong>fedavg</strong> gives the best single model: 90.50%" in answer
    assert "2 MB" in answer or "2.0 MB" in answer or "2.00 MB" in answer, answer
    assert "<strong>wash</strong> is within its spread (90.00%)" in answer
    assert "isolated" in answer and "91.00%" in answer  # the first of equal ensembles
    beside = text[text.index("WASH and its rivals") : text.index("Claims")]
    assert "-0.50 ± 0.00" in beside and "0 of 2 seeds" in beside and "0.05 of its" in beside
    assert "it sends none" in beside
    assert text.index("Curves") < text.index("Claims") < text.index("Options")
    assert "http" not in text.replace("http-equiv", "")


def test_the_same_comparison_is_the_same_page(tmp_path: Path) -> None:
    folder = made(tmp_path / "one", METHODS)
    assert comparison_page(folder).html() == comparison_page(Folder.open(folder.path)).html()


def test_what_is_varied_has_a_figure(tmp_path: Path) -> None:
    variants = variants_of(["wash", "fedavg"], ["local-steps=1,8", "dtype=float32,int8"], [0.0, 0.3])
    folder = made(tmp_path / "one", variants)
    names = [each.name for each in comparison_figures(folder, table(folder))]
    assert names == ["bytes", "apart", "between", "by-local-steps", "by-dtype", "by-dropout"]
    text = comparison_page(folder).html()
    assert "Accuracy against dropout" in text and "Accuracy against dtype" in text


def test_one_that_has_not_begun_or_is_under_way_says_so(tmp_path: Path) -> None:
    nothing = comparison_page(made(tmp_path / "one", METHODS, done=0)).html()
    assert "Nothing is trained yet" in nothing and "0 of 6 runs are done" in nothing
    half = comparison_page(made(tmp_path / "two", METHODS, done=1)).html()
    assert "3 of 6 runs are done" in half and "gives the best single model" in half


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = made(tmp_path / "<script>alert(1)<", METHODS)
    text = comparison_page(folder).html()
    assert "<script" not in text and "&lt;script&gt;" in text


def test_its_figures_are_written_on_request(tmp_path: Path) -> None:
    folder = made(tmp_path / "one", METHODS)
    said = CliRunner().invoke(app, ["report", str(folder.path), "--figures", str(tmp_path / "drawn")])
    assert said.exit_code == 0, said.output
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [each.name for each in drawn] == ["apart.png", "between.png", "bytes.png"]
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in drawn)


def test_the_command_knows_a_comparison_by_its_plan() -> None:
    assert COMPARISON[0] == PLAN


@pytest.mark.parametrize("out", [None, "page.html"])
def test_the_command_writes_it(tmp_path: Path, out: str | None) -> None:
    folder = made(tmp_path / "one", METHODS)
    path = folder.path / "report.html" if out is None else tmp_path / out
    said = CliRunner().invoke(app, ["report", str(folder.path), *(["-o", str(path)] if out else [])])
    assert said.exit_code == 0, said.output
    assert path.read_text() == comparison_page(folder).html()
