"""The lowest versions are those that pyproject.toml says, of all that users install."""

import importlib.util
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("lowest", ROOT / "tools" / "lowest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_up(*base: str, **extras: list[str]) -> dict[str, Any]:
    return {"name": "wash-fl", "dependencies": list(base), "optional-dependencies": {"dev": [], **extras}}


def test_every_package_of_a_user_is_constrained_to_the_lowest_version_and_no_tool_of_a_developer(
    tool, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["lowest.py"])
    tool.main()
    constraints = dict(line.split("==") for line in capsys.readouterr().out.splitlines())
    assert {"click", "flwr", "torch", "torchvision", "onnxruntime", "tensorboard"} <= set(constraints)
    assert not {"pytest", "ruff", "mypy", "flwr-datasets", "wash-fl"} & set(constraints)
    for extra, lines in PROJECT["optional-dependencies"].items():
        for line in lines if extra != "dev" else []:
            name, bound = re.fullmatch(r"([\w-]+)(?:\[.+\])?(?:>=([\d.]+).*)?", line).groups()
            assert name == "wash-fl" or constraints[name].startswith(bound)


def test_the_highest_of_several_bounds_counts_for_they_must_all_hold(tool):
    project = made_up("a>=1,<3", "b >= 2.0", one=["a[more]>=1.10"], two=["a>=1.9", "wash-fl[one]"])
    assert tool.lowest_of(project) == {"a": "1.10", "b": "2.0"}


@pytest.mark.parametrize("line", ["a", "a<3", "a~=1.0", "a>1"])
def test_a_package_without_a_lowest_version_is_refused(tool, line):
    with pytest.raises(ValueError, match=r"says no lowest version: write a>="):
        tool.lowest_of(made_up(line))


def test_what_is_installed_is_compared_as_versions(tool):
    here = version("numpy")
    assert tool.not_installed({"numpy": here, "pytest": version("pytest")}) == []
    assert tool.not_installed({"numpy": "1.0", "no-such-package": "1.0"}) == [
        f"numpy {here}, not 1.0",
        "no-such-package missing, not 1.0",
    ]


def test_with_other_versions_nothing_is_tried(tool, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lowest.py", "--try"])
    monkeypatch.setattr(tool, "lowest_of", lambda project: {"numpy": "1.0"})
    monkeypatch.setattr(tool, "try_help", lambda: pytest.fail("it was tried"))
    with pytest.raises(SystemExit, match="these are not the lowest versions: numpy"):
        tool.main()


def test_what_is_tried_runs_here_too(tool, tmp_path):
    assert tool.try_help() > 25
    assert re.fullmatch(
        r"checked, trained, exported, asked: \d+\.\d% of 360 digits are right",
        tool.try_run(tmp_path),
    )


def test_a_command_that_fails_is_named(tool):
    with pytest.raises(SystemExit, match="wash-fl evaluate /no/such/run ended with status 1"):
        tool._command("evaluate", "/no/such/run")
