"""The reference of options is what the dataclasses say, and its check notices when it is not."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from wash_fl.config import fields
from wash_fl.option import shown_default

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("configuration", ROOT / "tools" / "configuration.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tool: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["configuration.py", *arguments])
    tool.main()


def test_the_page_in_the_docs_is_up_to_date(tool, monkeypatch):
    run(tool, monkeypatch, "--check")


def test_every_option_has_one_row_with_its_default_choices_and_help(tool):
    lines = tool.page().splitlines()
    for key, spec in fields().items():
        (row,) = [line for line in lines if line.startswith(f"| `{key}` |")]
        assert f"`{json.dumps(shown_default(spec))}`" in row
        assert spec.metadata["help"] in row
        assert all(f"`{choice}`" in row for choice in spec.metadata["choices"])
        assert row.count("|") == 6


@pytest.mark.parametrize("change", [lambda text: text.replace("0.1", "0.2", 1), lambda text: text + "more\n"])
def test_a_page_that_says_something_else_is_noticed_and_left_alone(tool, monkeypatch, tmp_path, change):
    path = tmp_path / "configuration.md"
    path.write_text(change(tool.page()))
    before = path.read_text()
    assert before != tool.page()
    monkeypatch.setattr(tool, "PAGE", path)
    with pytest.raises(SystemExit, match=r"out of date: run python tools/configuration\.py"):
        run(tool, monkeypatch, "--check")
    assert path.read_text() == before
    run(tool, monkeypatch)
    run(tool, monkeypatch, "--check")


def test_a_page_that_is_missing_is_noticed(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "PAGE", tmp_path / "configuration.md")
    with pytest.raises(SystemExit, match="out of date"):
        run(tool, monkeypatch, "--check")


def test_limits_are_told_in_words(tool):
    assert tool.allowed(fields()["p"]) == "at least 0, at most 1"
    assert tool.allowed(fields()["alpha"]) == "above 0"
    assert tool.allowed(fields()["overlap"]) == "`true`, `false`"
    assert tool.allowed(fields()["seed"]) == "at least 0"
