"""The picture of the rooms is what the imports say, its check notices when it is not, no arrow points up."""

import re
import sys
from itertools import pairwise

import pytest

from tools import architecture
from tools.architecture import BEGIN, BOX, END, HEIGHT, floors_of, not_implied, picture, with_table
from tools.rooms import GROUND, ROOMS, edges, imports_of

NEEDS = {("member", "core"), ("member", "protocol"), ("protocol", "core"), ("cli", "member"), ("cli", "core")}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["architecture.py", *arguments])
    architecture.main()


def test_the_picture_and_the_table_in_the_docs_are_up_to_date(monkeypatch):
    run(monkeypatch, "--check")


@pytest.mark.parametrize("name", ["PICTURE", "PAGE"])
def test_what_says_something_else_is_noticed_and_left_alone(monkeypatch, tmp_path, name):
    for each in ("PICTURE", "PAGE"):
        path = tmp_path / getattr(architecture, each).name
        text = getattr(architecture, each).read_text()
        path.write_text(text.replace("member", "stranger") if each == name else text)
        monkeypatch.setattr(architecture, each, path)
    changed = getattr(architecture, name)
    before = changed.read_text()
    with pytest.raises(SystemExit, match=rf"{changed.name} is out of date: run python -m tools"):
        run(monkeypatch, "--check")
    assert changed.read_text() == before
    run(monkeypatch)
    run(monkeypatch, "--check")


def test_a_picture_that_is_missing_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(architecture, "PICTURE", tmp_path / "architecture.svg")
    with pytest.raises(SystemExit, match="out of date"):
        run(monkeypatch, "--check")


def test_every_room_is_in_the_picture_and_in_the_table():
    drawn = re.findall(r'class="name">([^<]+)<', picture(edges(imports_of())))
    assert sorted(drawn) == sorted([*ROOMS, ", ".join(GROUND)])
    page = with_table(f"before\n{BEGIN}STALE{END}after\n")
    assert page.startswith(f"before\n{BEGIN}") and page.endswith(f"{END}after\n") and "STALE" not in page
    assert re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE) == list(ROOMS)


def test_a_room_stands_above_all_that_it_needs():
    needs = {edge for edge in edges(imports_of()) if set(edge) <= ROOMS.keys()}
    heights = {name: number for number, floor in enumerate(floors_of(needs)) for name in floor}
    assert heights.keys() == ROOMS.keys() and len(needs) > 50
    assert all(heights[upper] > heights[lower] for upper, lower in needs)


def test_an_arrow_is_left_out_only_if_others_imply_it():
    assert not_implied(NEEDS) == {("member", "protocol"), ("protocol", "core"), ("cli", "member")}


def test_no_arrow_points_up_or_passes_behind_a_room():
    drawing = picture(edges(imports_of()))
    boxes = [
        tuple(map(float, each))
        for each in re.findall(rf'<rect x="(-?\d+)" y="(\d+)" width="{BOX}" height="{HEIGHT}"', drawing)
    ]
    arrows = [
        [tuple(map(float, point.split())) for point in each.split(" L ")]
        for each in re.findall(r'class="arrow" d="M ([^"]+)"', drawing)
    ]
    assert len(boxes) == len(ROOMS) and len(arrows) >= len(ROOMS) - 1
    for points in arrows:
        assert all(before[1] < after[1] for before, after in pairwise(points))
        for (x, y), (end, bottom) in pairwise(points):
            for left, top in boxes:
                for part in range(11):
                    across, down = x + (end - x) * part / 10, y + (bottom - y) * part / 10
                    assert not (left < across < left + BOX and top < down < top + HEIGHT), (points, left, top)
