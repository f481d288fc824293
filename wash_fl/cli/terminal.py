"""What all commands print to, and in the same way."""

import difflib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)

COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}
"""Of what a check found, by its level."""

Run = Annotated[Path, typer.Argument(help="A run's folder, such as runs/digits-2026-01-31-120000.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def say(console: Console, line: str) -> None:
    """Print a line without markup or wrapping: it may hold brackets, and a path must stay whole."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def say_error(message: str) -> None:
    """Print why a command failed, on one line."""
    err.print("[bold red]error:[/]", end=" ")
    say(err, " ".join(message.splitlines()))


def print_anything() -> None:
    """Let both streams print what their encoding has not, as an escape: names are in all scripts."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def usage_message(error: click.ClickException) -> str:
    """Return what is wrong with a command line, in words that are the same with all versions of click."""
    # Some have no suggestions, some say them twice, and some name an environment variable that there is not.
    message = error.format_message().partition(" Did you mean")[0].replace(" (env var: 'None')", "")
    message = message if message.endswith((".", "?")) else f"{message}."
    context: click.Context | None = getattr(error, "ctx", None)
    near: Sequence[str] = ()
    if isinstance(error, click.NoSuchOption):
        message = f"No such option '{error.option_name}'."
        near = error.possibilities or ()
    elif context and isinstance(context.command, click.Group) and message.startswith("No such command"):
        near = difflib.get_close_matches(message.split("'")[1], context.command.list_commands(context))
    if near:
        quoted = [f"'{each}'" for each in near]
        message += f" Did you mean {' or '.join(filter(None, [', '.join(quoted[:-1]), quoted[-1]]))}?"
    return f"{message} See {context.command_path} --help." if context else message
