"""The rooms of the package: not too many, every import points down, and nothing needs the laboratory."""

import subprocess
from pathlib import Path

import pytest

from tools.rooms import GROUND, MOST, ROOMS, ROOT, imports_of, wrongs

SOURCES = {
    "errors": "",
    "core/__init__": "",
    "core/mix": "from wash_fl.errors import WashError",
    "protocol/__init__": "",
    "protocol/session": "from wash_fl.core import mix",
    "cli/__init__": "",
    "cli/main": "COMMANDS = ('wash_fl.lab.bench',)",
    "lab/__init__": "",
    "lab/bench": "import wash_fl.cli.main",
    "__init__": "_HOMES = {'Session': 'wash_fl.protocol.session'}",
    "__main__": "from wash_fl.cli.main import COMMANDS",
}
"""A small package in which all is well."""

UP = "core.mix, line 1: protocol.session is above it"


def package(folder: Path, changes: dict[str, str] | None = None) -> Path:
    for name, text in (SOURCES | (changes or {})).items():
        path = folder / "wash_fl" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_every_import_of_the_package_points_down():
    assert wrongs() == []
    # And they are seen at all.
    pairs = {(each.origin, each.target) for each in imports_of()}
    assert {("protocol.coordinator", "core.draw"), ("cli.main", "lab.bench.commands")} <= pairs
    assert len({each.rooms for each in imports_of()}) > 100


def test_every_room_in_the_list_is_there():
    package = ROOT / "wash_fl"
    assert len(ROOMS) <= MOST
    assert all((package / name / "__init__.py").is_file() for name in ROOMS)
    assert all((package / f"{name}.py").is_file() for name in GROUND)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_room_is_called_what_git_ignores():
    # Whatever is ignored is in no wheel and in no Flower app either: `runs/` is where runs go, too.
    paths = [f"wash_fl/{name}/__init__.py" for name in ROOMS]
    process = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (1, ""), process


def test_a_package_in_which_all_is_well_has_no_wrongs(tmp_path):
    assert wrongs(package(tmp_path)) == []


@pytest.mark.parametrize(
    ("place", "source", "expected"),
    [
        (
            "core/mix",
            "import wash_fl.protocol.session",
            UP,
        ),
        (
            "core/mix",
            "from wash_fl.protocol import session",
            UP,
        ),
        ("core/mix", "from ..protocol import session", UP),
        (
            "core/mix",
            "from ..protocol.session import x",
            UP,
        ),
        ("core/__init__", "from .. import protocol", "core, line 1: protocol is above it"),
        ("errors", "from wash_fl.core.mix import x", "errors, line 1: core.mix is above it"),
        ("core/mix", "def f():\n    import wash_fl.protocol", "core.mix, line 2: protocol is above it"),
        (
            "core/mix",
            "if TYPE_CHECKING:\n    from wash_fl.protocol.session import Session",
            "core.mix, line 2: protocol.session is above it",
        ),
        ("core/mix", "f('wash_fl.protocol.session')", UP),
        ("core/mix", "from wash_fl import lab", "core.mix, line 1: lab is the laboratory's"),
        ("cli/main", "def f():\n    import wash_fl.lab", "cli.main, line 2: lab is the laboratory's"),
        (
            "protocol/session",
            "x = 'wash_fl.lab.bench'",
            "lab.bench is the laboratory's",
        ),
        ("locks", "", "locks.py has no room"),
        ("kitchen/__init__", "", "kitchen/ is not in the list of rooms"),
    ],
)
def test_what_is_against_the_order_is_seen_wherever_it_stands(tmp_path, place, source, expected):
    lines = wrongs(package(tmp_path, {place: source}))
    assert any(expected in line for line in lines), lines


def test_a_circle_between_rooms_is_seen(tmp_path):
    lines = wrongs(package(tmp_path, {"core/mix": "from wash_fl.protocol.session import x"}))
    assert any(line.startswith("a circle: ") and {"core", "protocol"} <= set(line.split()) for line in lines)


def test_too_many_rooms_are_seen(tmp_path):
    more = {f"room{number}/__init__": "" for number in range(MOST)}
    assert f"{MOST + 4} rooms: at most {MOST} can be kept in mind" in wrongs(package(tmp_path, more))
