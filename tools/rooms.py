"""The rooms of the package, in their one order, and the imports between them as they stand in the source.

A room is a folder directly under ``wash_fl``. What it imports lies below it in :data:`ROOMS`: so there is no
circle, and each room can be read with those below it alone. ``tests/test_rooms.py`` holds the source to this,
and ``tools/architecture.py`` draws it.
"""

import ast
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

PACKAGE: Final = "wash_fl"
ROOT: Final = Path(__file__).resolve().parents[1]
MOST: Final = 20

GROUND: Final = {
    "errors": "every error, and what a message says of one that is not ours",
    "option": "what an option is",
    "config": "every option once",
    "files": "files that are whole or not there",
    "clock": "the time that is waited by",
    "extras": "what to install where something is missing",
    "sources": "which wash_fl a process runs, and whether it is the server's",
}
"""The modules at the top of the package: each is a leaf or knows these alone, and most rooms need it."""

ROOMS: Final = {
    "core": (
        "the algorithm, numpy only: layout, what differs from plane to plane (`plane.py`), what "
        "becomes of each entry of a state dict (`rules.py`), schedule and what `auto` means, draw, "
        "mix, codec, packet, gauge"
    ),
    "faults": "faults on purpose: plans by member and exchange, points to die at",
    "system": "the operating system: being stopped by a signal, locks on files, a program's peak memory",
    "protocol": (
        "who does what when, numpy only: every decision of a server (`coordinator.py`) and of a "
        "member (`session.py`); membership, joining, rounds, what is out (`requests.py`), the two "
        "planes' exchanges, escrow, journal, quorum, deadline, outliers, terms"
    ),
    "tasks": "data and models; the interface a user implements",
    "export": (
        "ONNX, parity with PyTorch; int8 and what it costs; without torch: inference, and what it is "
        "given: arrays, images, windows of readings"
    ),
    "storage": "the journal in SQLite; named arrays in files",
    "member": (
        "a device's part, in torch: gather and scatter, state dicts and their aliases, optimizer "
        "state, local training; the member's side of the protocol, its pace, its state on disk in two "
        "generations, its exchanges while it trains and their log"
    ),
    "consensus": "one model out of many: averaging, spectral norms, greedy soup, BatchNorm, evaluation",
    "stream": (
        "the stream plane: the gRPC service around a coordinator, the member's line to it, the bytes; "
        "the one lock (`guard.py`)"
    ),
    "flower": (
        "Flower around the protocol: the strategy, a client's handlers, requests as messages "
        "(`outbox.py`) and what comes back (`failures.py`), arrays from strangers, bytes; a grid in "
        "one process, a grid that mistreats"
    ),
    "runs": (
        "the job and its folder: all that a server does for a run (`job.py`); the folder, what is "
        "read back from it however damaged, its figures; its models as ONNX files; whether a stopped "
        "fleet still holds every value (`audit.py`)"
    ),
    "report": (
        "what a person reads of a run: its progress; its page, apart from the document that pages are "
        "built with; event files"
    ),
    "checks": (
        "whether a task can become a right model: before anything is started, its data, its model, a "
        "training step, its export, and a second process that makes it all again"
    ),
    "doctor": "whether a machine can be a device; without torch",
    "deploy": (
        "starting and stopping Flower; runs in simulation and on a fleet; credentials, a fleet on one machine"
    ),
    "cli": "the command line; a file for each command",
    "lab": (
        "measurements, which nothing else imports: what it costs (`bench/`, a module for each "
        "command), the trainer without Flower and WASH beside its rivals (`compare/`), the search for "
        "faults (`search/`), slow links on one machine (`network/`), runs of real processes to which "
        "something happens (`campaign/`)"
    ),
}
"""What lives in each room, from the ground up; a picture has the words up to a colon or semicolon."""


@dataclass(frozen=True)
class Import:
    """One module that needs another, by an import anywhere in it or by its name in a string.

    Attributes
    ----------
    origin, target : str
        The modules, without the package's name.
    line : int
        Where it stands.
    by_name : bool
        Whether it is a string, as of what is loaded later or runs as a process of its own.
    """

    origin: str
    target: str
    line: int
    by_name: bool

    @property
    def rooms(self) -> tuple[str, str]:
        """The rooms of both, or the modules' names at the top of the package."""
        return self.origin.partition(".")[0], self.target.partition(".")[0]


def imports_of(root: Path = ROOT) -> list[Import]:
    """Return every import within the package, those for type checkers and those within functions among them.

    Left out is ``__init__.py`` at the top, which loads a name that a user imports from where it lives, and a
    module whose name is put together at run time.

    Parameters
    ----------
    root : Path
        The folder that the package is in.
    """
    paths = {_name(path.relative_to(root)): path for path in sorted((root / PACKAGE).rglob("*.py"))}
    return [
        Import(_without(origin), _without(target), line, by_name)
        for origin, path in paths.items()
        if origin != PACKAGE
        for target, line, by_name in _targets(path, origin, paths)
        if target != PACKAGE
    ]


def edges(imports: Iterable[Import]) -> set[tuple[str, str]]:
    """Return which room needs which other, but for the command line, which loads the laboratory by name."""
    return {each.rooms for each in imports if len(set(each.rooms)) == 2 and not _is_command(each)}


def wrongs(root: Path = ROOT) -> list[str]:
    """Return what is against the order of the rooms, a line each; none if all is well."""
    folders = {path.parent.name for path in (root / PACKAGE).glob("*/__init__.py")}
    loose = {path.stem for path in (root / PACKAGE).glob("*.py")} - {"__init__", "__main__"}
    lines = [f"{name}/ is not in the list of rooms" for name in sorted(folders - ROOMS.keys())]
    lines += [f"{name}.py has no room" for name in sorted(loose - GROUND.keys())]
    if len(folders) > MOST:
        lines.append(f"{len(folders)} rooms: at most {MOST} can be kept in mind")
    height = dict.fromkeys(GROUND, 0) | {name: number for number, name in enumerate(ROOMS, start=1)}
    imports = imports_of(root)
    for each in imports:
        origin, target = each.rooms
        place = f"{each.origin}, line {each.line}: {each.target}"
        if _is_command(each):
            continue
        if "lab" == target != origin:
            lines.append(f"{place} is the laboratory's")
        elif origin != target and height.get(target, 0) > height.get(origin, len(height)):
            lines.append(f"{place} is above it")
    graph: dict[str, set[str]] = {}
    for origin, target in edges(imports):
        graph.setdefault(origin, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        lines.append(f"a circle: {' <- '.join(error.args[1])}")
    return lines


def _is_command(each: Import) -> bool:
    return each.by_name and each.rooms == ("cli", "lab")


def _targets(path: Path, origin: str, known: Container[str]) -> Iterator[tuple[str, int, bool]]:
    package = origin if path.name == "__init__.py" else origin.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.partition(".")[0] == PACKAGE:
                    yield name.name, node.lineno, False
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            if module.partition(".")[0] == PACKAGE:
                for name in node.names:
                    within = f"{module}.{name.name}"
                    yield within if within in known else module, node.lineno, False
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known:
            yield node.value, node.lineno, True


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _without(module: str) -> str:
    return module.removeprefix(f"{PACKAGE}.")
