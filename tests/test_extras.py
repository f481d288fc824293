"""What is missing is named with one extra that suffices, and a command that finds wash_fl where it is."""

import json
import re
import shlex
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import typer

from wash_fl import extras
from wash_fl.cli.main import app
from wash_fl.extras import COMMANDS, MODULES, extra_for, install_hint

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

IMPORTED_AS = {"grpcio": "grpc", "pillow": "PIL"}
"""Packages whose module has another name."""


def brought_by(extra: str) -> set[str]:
    """Return the names of the packages that an extra asks for, and those that it takes from others."""
    names: set[str] = set()
    for line in PROJECT["optional-dependencies"][extra]:
        if own := re.fullmatch(r"wash-fl\[(.+)\]", line):
            names |= {name for each in own[1].split(",") for name in brought_by(each)}
        else:
            names.add(re.split(r"[^\w-]", line)[0])
            names |= {"ray"} if "[simulation]" in line else set()
    return {IMPORTED_AS.get(name, name) for name in names}


# Where this package came from, as pip writes it down: PEP 610.

WHEEL = "wash_fl-0.1.0-py3-none-any.whl"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def came_from(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give ``came_from(origin)``: what ``direct_url.json`` holds, a text, or None where there is no file."""

    def put(origin: Any) -> None:
        class Distribution:
            @staticmethod
            def read_text(name: str) -> str | None:
                assert name == "direct_url.json"
                return origin if origin is None or isinstance(origin, str) else json.dumps(origin)

        monkeypatch.setattr("importlib.metadata.distribution", lambda name: Distribution)

    return put


def words(hint: str) -> list[str]:
    """Return what the shell gives pip, if the hint is a command and nothing else."""
    return shlex.split(hint)


def test_a_checkout_is_installed_from_again_and_stays_editable(came_from, tmp_path):
    folder = tmp_path / "my checkout's"
    folder.mkdir()
    came_from({"url": folder.as_uri(), "dir_info": {"editable": True}})
    assert words(install_hint("server")) == ["pip", "install", "-e", f"{folder}[server]"]
    came_from({"url": folder.as_uri(), "dir_info": {}})
    assert words(install_hint("client", "--upgrade")) == ["pip", "install", "--upgrade", f"{folder}[client]"]


def test_a_wheel_is_named_where_it_lies(came_from, tmp_path):
    wheel = tmp_path / WHEEL
    wheel.touch()
    came_from({"url": wheel.as_uri(), "archive_info": {}})
    assert words(install_hint("infer")) == ["pip", "install", f"{wheel}[infer]"]
    came_from({"url": f"https://example.org/{WHEEL}", "archive_info": {}})
    assert words(install_hint("infer"))[2:] == [f"wash-fl[infer] @ https://example.org/{WHEEL}"]


def test_a_repository_is_named_with_the_commit_that_is_installed(came_from):
    origin = {
        "url": "https://example.org/wash_fl.git",
        "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "main"},
    }
    came_from(origin)
    expected = f"wash-fl[client] @ git+https://example.org/wash_fl.git@{COMMIT}"
    assert words(install_hint("client")) == ["pip", "install", expected]
    came_from(origin | {"subdirectory": "python"})
    assert words(install_hint("client"))[2:] == [f"{expected}#subdirectory=python"]


def test_only_what_came_from_an_index_is_asked_of_one(came_from):
    came_from(None)
    assert words(install_hint("server")) == ["pip", "install", "wash-fl[server]"]


@pytest.mark.parametrize(
    "origin",
    [
        {"url": "file:///no/such/folder", "dir_info": {"editable": True}},
        {"url": f"file:///no/such/{WHEEL}", "archive_info": {}},
        {},
        "no JSON",
    ],
)
def test_what_is_there_no_more_is_to_be_had_in_a_checkout(came_from, origin):
    came_from(origin)
    assert re.fullmatch(r"pip install (-e )?'\.\[server\]' in a checkout of wash_fl", install_hint("server"))


def test_a_checkout_that_is_not_installed_is_found_and_a_copied_package_is_not(monkeypatch, tmp_path):
    def nowhere(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", nowhere)
    assert words(install_hint("server")) == ["pip", "install", "-e", f"{ROOT}[server]"]
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "wash_fl" / "extras.py"))
    assert install_hint("server") == "pip install -e '.[server]' in a checkout of wash_fl"


# One extra that suffices.


def test_the_smallest_extra_brings_the_module_and_no_smaller_one_does():
    sizes = sorted(set(MODULES.values()), key=lambda extra: len(brought_by(extra)))
    for module, extra in MODULES.items():
        if module == "cryptography":
            assert extra == "client"  # of Flower's
            continue
        assert module in brought_by(extra), module
        assert not any(module in brought_by(each) for each in sizes[: sizes.index(extra)]), module


def test_every_package_of_an_extra_that_users_install_is_known():
    for extra in set(PROJECT["optional-dependencies"]) - {"dev"}:
        assert brought_by(extra) <= set(MODULES), extra


def command_names(command: Any, context: Any, above: str = "") -> set[str]:
    """Return the names of all commands, with those of their groups before them."""
    names = set()
    for name in command.list_commands(context):
        own = command.get_command(context, name)
        names |= {f"{above}{name}"}
        names |= command_names(own, context, f"{above}{name} ") if hasattr(own, "list_commands") else set()
    return names


def test_the_commands_are_real_ones():
    command = typer.main.get_command(app)
    assert set(COMMANDS) <= command_names(
        command, command.make_context("wash-fl", ["simulate"], resilient_parsing=True)
    )


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("torch", "", "client"),
        ("torch", "simulate --rounds", "simulation"),
        ("ray", "simulate", "simulation"),
        ("torch", "evaluate runs/RUN", "server"),
        ("matplotlib.figure", "report runs/RUN", "server"),
        ("tensorboard", "report runs/RUN", "tensorboard"),
        ("onnxruntime", "predict model.onnx", "infer"),
        ("cryptography", "fleet key", "client"),
        ("cryptography", "fleet up", "server"),
        ("psutil", "bench stream", "simulation"),
        ("onnxruntime", "bench inference", "infer"),
        ("torch", "doctor", "client"),
        ("a_module_of_the_user", "simulate", None),
    ],
)
def test_the_extra_is_that_of_the_command_if_what_is_missing_is_the_first_of_many(module, command, extra):
    assert extra_for(module, command) == extra


# Nowhere else.


def test_no_other_file_says_how_to_install_an_extra():
    others = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "wash_fl").rglob("*.py"))
        if path.name != "extras.py"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"wash-fl\[|pip install .*\[", line)
    ]
    assert others == []
