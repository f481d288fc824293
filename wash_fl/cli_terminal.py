"""What all commands print to, and in the same way."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)

Run = Annotated[Path, typer.Argument(help="A run's folder, such as runs/digits-2026-01-31-120000.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def say(console: Console, line: str) -> None:
    """Print a line without markup or wrapping: it may hold brackets, and a path must stay whole."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def say_error(message: str) -> None:
    """Print why a command failed, on one line."""
    err.print("[bold red]error:[/]", end=" ")
    say(err, message)
