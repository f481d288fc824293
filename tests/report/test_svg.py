"""A figure within a page: text, the page's ink, and no name that another figure has."""

import re
import sys
from xml.etree import ElementTree

import pytest

from wash_fl.report.svg import INK, inline_svg
from wash_fl.runs.figures import DOTS, LINES, Figure, run_figures
from wash_fl.runs.record import Round

pytest.importorskip("matplotlib")


def a_round(number: int, members: int = 3) -> Round:
    return Round.of(
        {
            "round": number,
            "members": {str(member): {"accuracy": 0.01 * member + 0.1 * number} for member in range(members)},
            "relative_distance": 0.2 / number,
            "bytes": {"up_messages": 1000 * number, "up_values": 900 * number},
        }
    )


FINAL = {"averaged": 0.9, "ensemble": 0.8}
FIGURES = run_figures([a_round(number) for number in (1, 2, 3)], FINAL)


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)


@pytest.mark.parametrize("each", FIGURES, ids=lambda each: each.name)
def test_a_figure_is_one_element_of_text_and_lines_in_the_pages_ink(each: Figure):
    markup = inline_svg(each).markup
    root = ElementTree.fromstring(markup)
    assert root.tag == "svg" and root.get("viewBox") and root.get("aria-label", "").startswith(each.title)
    assert not {"width", "height"} & set(root.keys()), "it takes the width that there is"
    texts = [element.text for element in root.iter("text")]
    assert {"round", each.quantity} <= set(texts)
    assert "currentColor" in markup and INK not in markup
    assert not re.search(r"#(?:000000|ffffff)", markup), "lost in the dark, or in the light"
    # Nothing that holds for the whole page, and nothing that is fetched.
    assert not {"style", "metadata", "script", "image"} & {element.tag for element in root.iter()}
    assert "://" not in markup


def test_figures_of_a_page_share_no_identifier_and_refer_to_their_own():
    identifiers: set[str] = set()
    for each in FIGURES:
        markup = inline_svg(each).markup
        own = set(re.findall(r' id="([^"]+)"', markup))
        assert own and not own & identifiers
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', markup)) == own
        identifiers |= own


def test_the_same_figure_is_the_same_text_and_leaves_no_setting_behind():
    import matplotlib

    # But "backend", which asks for a display when it is read.
    names = set(matplotlib.rcParams) - {"backend"}
    before = {name: matplotlib.rcParams[name] for name in names}
    assert [inline_svg(each) for each in FIGURES] == [inline_svg(each) for each in FIGURES]
    assert {name: matplotlib.rcParams[name] for name in names} == before


def test_only_figures_with_something_to_see_are_not_empty():
    assert [each.empty for each in FIGURES] == [False] * 3
    assert [each.empty for each in run_figures([], FINAL)] == [True] * 3
    silent = Round.of({"round": 1, "members": {"0": {}}, "bytes": {"up_messages": 1, "up_values": 1}})
    assert [each.empty for each in run_figures([silent], None)] == [True, True, False]


def test_a_figure_of_a_large_ensemble_or_a_long_run_stays_small():
    for rounds in (
        [a_round(number, LINES * 10) for number in (1, 2)],
        [a_round(n) for n in range(1, DOTS * 10)],
    ):
        for each in run_figures(rounds, FINAL):
            assert len(inline_svg(each).markup) < 40_000
