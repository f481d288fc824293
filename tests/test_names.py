"""Names say what a thing is: in rooms that are clean, none is a bare participle such as `found` or `given`.

CONTRIBUTING.md, "Names", has the rule. A name of several words (`last_seen`, `has_ended`) says what it is,
and what others call their things (`call(found=1)`, `match.found`) is theirs.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PARTICIPLES = frozenset({
    "asked", "begun", "built", "chosen", "counted", "done", "drawn", "ended", "found", "given", "gone", "got",
    "heard", "held", "kept", "known", "left", "lost", "made", "met", "placed", "reached", "said", "seen",
    "sent", "shown", "taken", "told", "tried", "wanted", "written",
})  # fmt: skip

CLEAN = (
    *("checks", "cli", "consensus", "deploy", "doctor", "export", "faults", "report", "runs", "storage"),
    *("system", "tasks", "lab/bench", "lab/campaign", "lab/network", "lab/machine.py", "lab/pools.py"),
    *("extras.py", "files.py", "option.py"),
)
"""Rooms and modules of the package; whoever cleans another one adds it, and its tests below."""

CLEAN_TESTS = (
    *("checks", "cli", "consensus", "deploy", "doctor", "export", "faults", "report", "runs", "storage"),
    *("system", "tasks", "lab/bench", "lab/campaign", "lab/network"),
    *("conftest.py", "descendants.py", "holding.py", "made_run.py"),
    *("test_config.py", "test_descendants.py", "test_docs.py", "test_errors.py", "test_extras.py"),
    *("test_files.py", "test_interrupts.py", "test_names.py", "test_only_infer.py", "test_rooms.py"),
    "test_typed.py",
)

PLACES = (*(f"wash_fl/{each}" for each in CLEAN), *(f"tests/{each}" for each in CLEAN_TESTS))

FEEDS = ("Feed", "Seed", "Speed", "Embed")
"""Last words of a class that end as a participle does, and are none."""

ALLOWED = {
    ("wash_fl/consensus/spectral.py", "left"): "left and right singular vectors",
    ("tests/consensus/test_spectral.py", "left"): "left and right singular vectors",
    ("wash_fl/option.py", "Checked"): "config.py builds on it, which is not clean yet",
}


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of everything that a source names itself, but for classes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.alias(asname=str(name)):
                yield node.lineno, name
            case (
                ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name))
            ):
                yield node.lineno, name
            case _:
                pass


def classes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of every class but exceptions, which may be called what happened."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(each) for each in node.bases]
            if not any(base.endswith(("Exception", "Error")) for base in bases):
                yield node.lineno, node.name


def is_participle(class_name: str) -> bool:
    """Whether the last word of a class's name is a participle: a class is a noun."""
    last = re.findall(r"[A-Z][a-z0-9]*|[a-z0-9]+", class_name)[-1]
    return last.lower() in PARTICIPLES or (last.endswith("ed") and last not in FEEDS)


def participles(source: str) -> list[tuple[int, str]]:
    """Return the line and the name of everything in a source that is named by a bare participle."""
    tree = ast.parse(source)
    names = [(line, name) for line, name in bindings(tree) if name.strip("_").lower() in PARTICIPLES]
    names += [(line, name) for line, name in classes(tree) if is_participle(name)]
    return sorted(names)


def files_of(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("place", PLACES)
def test_nothing_in_a_clean_room_is_named_by_a_bare_participle(place):
    files = files_of(place)
    assert files, f"{place} is not there"
    wrongs = [
        f"{path.relative_to(ROOT)}, line {line}: {name}"
        for path in files
        for line, name in participles(path.read_text(encoding="utf-8"))
        if (path.relative_to(ROOT).as_posix(), name) not in ALLOWED
    ]
    assert wrongs == []


def test_every_exception_is_still_needed():
    for path, name in ALLOWED:
        assert name in [each for _, each in participles((ROOT / path).read_text(encoding="utf-8"))], path


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "found: int = 1",
        "found += 1",
        "_found, x = 1, 2",
        "KEPT = 1",
        "self._kept = 1",
        "class A:\n    told: str",
        "def f(given): ...",
        "def f(*, given): ...",
        "def f(*given): ...",
        "def f(**given): ...",
        "f = lambda asked: 0",
        "def shown(): ...",
        "async def shown(): ...",
        "for seen in x: ...",
        "[seen for seen in x]",
        "if (seen := x): ...",
        "with x as told: ...",
        "try: ...\nexcept E as said: ...",
        "import x as made",
        "from x import y as made",
        "match x:\n    case [lost, *_]: ...",
        "match x:\n    case [*lost]: ...",
        "match x:\n    case {**lost}: ...",
        "class Ended: ...",
        "class FileAnswered: ...",
        "class _Lost(NamedTuple): ...",
        "def f():\n    def g():\n        wanted = 1",
    ],
)
def test_a_participle_is_seen_wherever_it_is_planted(source):
    assert len(participles(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "last_seen = has_ended = is_known = 1",
        "f(found=1)",
        "x = y.found",
        "x = 'found'",
        "# found = 1",
        "class Killed(BaseException): ...",
        "class _Feed: ...",
        "class RunFolder: ...",
        "def folded(): ...",
    ],
)
def test_names_that_say_what_they_are_and_those_of_others_are_let_through(source):
    assert participles(source) == []
