"""A function fits on a screen, and a constructor takes few things: the rest are options, in an object."""

import ast
from collections.abc import Iterator

import pytest

from tools.rooms import ROOT

LINES, PARAMETERS, STRATEGY = 60, 8, 250

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield node


def lines(function: Function) -> int:
    """Return how many lines a function has below its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def parameters(function: Function) -> int:
    """Return how many parameters a method has besides ``self``."""
    given = function.args
    return len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) - 1


def too_large(source: str) -> list[str]:
    found = [f"{each.name}: {lines(each)} lines" for each in functions(source) if lines(each) > LINES]
    return found + [
        f"a constructor of {parameters(each)} parameters"
        for each in functions(source)
        if each.name == "__init__" and parameters(each) > PARAMETERS
    ]


def test_no_function_is_too_long_and_no_constructor_takes_too_much():
    sources = [path for path in (ROOT / "wash_fl").rglob("*.py") if not path.name.endswith("_pb2.py")]
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in sources
        if (wrong := too_large(path.read_text(encoding="utf-8")))
    }
    assert len(sources) > 300
    assert found == {}


def test_the_strategy_fits_into_a_reader_s_head():
    text = (ROOT / "wash_fl" / "flower" / "strategy.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < STRATEGY


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n" + "    x = 1\n" * LINES, []),
        ("def f():\n" + "    x = 1\n" * (LINES + 1), [f"f: {LINES + 1} lines"]),
        ('def f():\n    """' + "says\n" * LINES + '"""\n    return 1\n', []),
        ("class A:\n    def __init__(self, a, b, c, d, *, e, f, g, h): ...", []),
        (
            "class A:\n    def __init__(self, a, b, c, d, *, e, f, g, h, i): ...",
            ["a constructor of 9 parameters"],
        ),
    ],
)
def test_what_is_too_large_is_seen(source, expected):
    assert too_large(source) == expected
