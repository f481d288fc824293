"""The lowest versions that pyproject.toml allows: which they are, and whether wash_fl works with them.

    python tools/lowest.py            # as constraints for pip
    python tools/lowest.py --try      # in an environment that has them: make test-lowest

Everything that users install is lowered, the tools of the extra ``dev`` alone are not. To try is to print the
help of every command, and to check a task, train, export, evaluate and predict in a few seconds. That the
lowest versions are those that are installed is checked first.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
TOOLS = "dev"
"""The extra whose packages run no part of wash_fl."""


def main() -> None:
    """Print the constraints, or try what is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--try", action="store_true", dest="trying", help="try what is installed")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = lowest_of(project)
    if not parser.parse_args().trying:
        print("".join(f"{name}=={number}\n" for name, number in lowest.items()), end="")
        return
    others = not_installed(lowest)
    if others:
        sys.exit(f"these are not the lowest versions: {', '.join(others)}. Run make test-lowest.")
    print(", ".join(f"{name} {number}" for name, number in lowest.items()))
    print(f"{try_help()} helps")
    with tempfile.TemporaryDirectory(prefix="wash-lowest-") as folder:
        print(try_run(Path(folder)))


def lowest_of(project: dict[str, Any]) -> dict[str, str]:
    """Return the lowest allowed version of every package that users install, in the order of the names.

    Parameters
    ----------
    project : dict
        The table ``project`` of pyproject.toml.

    Raises
    ------
    ValueError
        If a requirement says no lowest version.
    """
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(line for name, own in extras.items() if name != TOOLS for line in own),
    ]
    bounds: dict[str, Version] = {}
    for requirement in map(Requirement, lines):
        if requirement.name == project["name"]:
            continue
        lowest = [each.version for each in requirement.specifier if each.operator == ">="]
        if len(lowest) != 1:
            raise ValueError(f"{requirement} says no lowest version: write {requirement.name}>=...")
        bounds[requirement.name] = max(Version(lowest[0]), bounds.get(requirement.name, Version("0")))
    return {name: str(bounds[name]) for name in sorted(bounds)}


def not_installed(lowest: dict[str, str]) -> list[str]:
    """Return each package that is missing here, or is here in another version."""
    others = []
    for name, number in lowest.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "missing"
        if installed == "missing" or Version(installed) != Version(number):
            others.append(f"{name} {installed}, not {number}")
    return others


def try_help() -> int:
    """Print the help of every command to nowhere; return how many there are."""
    import click
    import typer

    from wash_fl.cli.main import app

    helps = list(_commands(typer.main.get_command(app), click.Context))
    for words in helps:
        _command(*words, "--help")
    return len(helps)


def try_run(folder: Path) -> str:
    """Check a task, train members in this process, export the average, and ask the file by both commands."""
    import numpy as np
    import torch

    from wash_fl.config import RunConfig
    from wash_fl.consensus.finish import Evaluator
    from wash_fl.lab.compare.trainer import Trainer
    from wash_fl.runs.folder import MODEL, RunFolder
    from wash_fl.tasks.task import load_task

    torch.set_num_threads(1)
    options = {"members": 2, "rounds": 4, "division": "dirichlet", "run-dir": str(folder), "run-name": "run"}
    config = RunConfig.from_mapping(options)
    run = RunFolder.create(config)
    run.save_weights(Trainer(config).run().weights)
    evaluator = Evaluator(load_task("digits"), config)
    inputs = folder / "inputs.npy"
    np.save(inputs, evaluator.inputs.numpy())
    _command("check", "digits")
    _command("export", str(run.path))
    _command("export", str(run.path), "--int8")
    accuracy = json.loads(_command("evaluate", str(run.path), "--json"))["onnx"]
    answers = json.loads(_command("predict", str(run.path / MODEL), str(inputs), "--json"))["predictions"]
    right = [int(each["label"]) for each in answers] == evaluator.targets
    if not 0.2 < accuracy == float(np.mean(right)):
        sys.exit(f"the model's file is right for {accuracy:.1%}, and predict for {np.mean(right):.1%}")
    return f"checked, trained, exported, asked: {accuracy:.1%} of {len(answers)} digits are right"


def _commands(command: Any, context: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name in getattr(command, "commands", {}):
        own = command.get_command(context(command), name)
        yield from _commands(own, context, (*words, name))


def _command(*words: str) -> str:
    """Run a command of ours in this process and return what it printed."""
    from wash_fl.cli.main import main as wash

    before, sys.argv = sys.argv, ["wash-fl", *words]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            wash()
    except SystemExit as error:
        if error.code:
            sys.exit(f"wash-fl {' '.join(words)} ended with status {error.code}")
    finally:
        sys.argv = before
    return printed.getvalue()


if __name__ == "__main__":
    main()
