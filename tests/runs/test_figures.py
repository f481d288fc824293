"""A run's figures are real pictures of its numbers, drawn without a display."""

import copy
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from wash_fl.runs.figures import draw_figures

pytest.importorskip("matplotlib")

SUMMARY = {"accuracy": {"ensemble": 0.9, "averaged": 0.88}}


def round_event(number: int, **changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "event": "round",
        "round": number,
        "members": {"0": {"loss": 0.5, "accuracy": 0.1 * number}, "10": {"loss": 0.4}, "2": {}},
        "relative_distance": 0.2 / number,
        "bytes": {"up_messages": 1000 * number, "up_values": 900 * number},
    }
    return event | changes


EVENTS = [{"event": "start"}, *(round_event(number) for number in range(1, 5)), {"event": "finished"}]


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    """Neither a display, nor the part of matplotlib that looks for one."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)


def picture_of(path: Path) -> Any:
    from matplotlib import image

    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR" and b"IEND" in content[-12:]
    assert struct.unpack(">II", content[16:24]) == (840, 480)
    return image.imread(path)


def test_three_pictures_are_drawn_into_a_folder_that_is_made(tmp_path):
    paths = draw_figures(tmp_path / "deep" / "figures", EVENTS, SUMMARY)
    assert [path.name for path in paths] == ["accuracy.png", "distance.png", "bytes.png"]
    assert sorted((tmp_path / "deep" / "figures").iterdir()) == sorted(paths), "and nothing else"
    for path in paths:
        picture = picture_of(path)
        assert picture.std() > 0.01, "a blank picture"


def test_each_picture_shows_its_numbers_and_no_others(tmp_path):
    changes: dict[str, tuple[str, Any]] = {
        "accuracy.png": ("members", {"0": {"accuracy": 0.9}}),
        "distance.png": ("relative_distance", 0.9),
        "bytes.png": ("bytes", {"up_messages": 10_000_000, "up_values": 1}),
    }
    before = {path.name: picture_of(path) for path in draw_figures(tmp_path / "before", EVENTS, SUMMARY)}
    for name, (field, value) in changes.items():
        events = copy.deepcopy(EVENTS)
        events[2][field] = value
        for path in draw_figures(tmp_path / name, events, SUMMARY):
            assert (picture_of(path) != before[path.name]).any() == (path.name == name)


def test_rounds_without_exchange_and_runs_without_rounds_are_drawn_too(tmp_path):
    silent = [round_event(1, relative_distance=None), round_event(2, relative_distance=None, members={})]
    for number, events in enumerate(([], silent)):
        assert all(picture_of(path).size for path in draw_figures(tmp_path / str(number), events, SUMMARY))
