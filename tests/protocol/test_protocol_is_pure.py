"""The protocol decides and does nothing: no thread, clock, socket, disk, torch, Flower or gRPC."""

import ast
from pathlib import Path

import pytest

import wash_fl

ROOM = Path(wash_fl.__file__).parent
FORBIDDEN = {"threading", "time", "socket", "asyncio", "subprocess", "torch", "flwr", "grpc", "sqlite3", "os"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOM / "protocol").glob("*.py"), *(ROOM / "core").glob("*.py")]),
    ids=lambda path: path.name,
)
def test_a_module_of_core_and_protocol_has_no_effect(path):
    assert not {each.partition(".")[0] for each in imports(path)} & FORBIDDEN
