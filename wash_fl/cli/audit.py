"""``wash-fl audit``: whether a stopped fleet still holds every value."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from wash_fl.cli.terminal import Json, Run, out

if TYPE_CHECKING:
    from wash_fl.runs.findings import Audit


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(audit)


def audit(
    run: Run,
    states: Annotated[
        list[Path] | None,
        typer.Argument(help="State folders of the devices, or copies; by default those of a simulation."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check on a stopped fleet that every value is held once: journal and members' states side by side.

    RUN is a run's folder on the server, such as runs/digits-2026-01-31-120000; STATES are the folders in
    which the devices keep their members. The exit status is 1 if there is a problem, or if nothing could be
    checked.
    """
    from wash_fl.runs.audit import as_json as to_json
    from wash_fl.runs.audit import audit as look
    from wash_fl.runs.folder import MEMBERS, RunFolder

    result = look(RunFolder.open(run), states or [run / MEMBERS])
    if as_json:
        print(json.dumps(to_json(result)))
    else:
        table = Table("member", "state", title=f"{escape(result.run)}: {result.settled} exchanges settled")
        for member, text in sorted(result.members.items()):
            table.add_row(str(member), escape(text))
        out.print(table)
        for line in [
            f"{result.waiting} deliveries wait in the journal; "
            f"{result.values} values of the last exchange were compared",
            *(f"not checked: {each}" for each in result.unchecked),
            *(f"PROBLEM: {each}" for each in result.problems),
            _verdict(result),
        ]:
            if line:
                out.print(line, markup=False, highlight=False, soft_wrap=True)
    if result.problems or not result.checked:
        raise typer.Exit(1)


def _verdict(result: "Audit") -> str:
    if result.problems:
        return ""
    if not result.checked:
        return "nothing was checked: no member's state is in these folders, or none can be used"
    return "no value is lost or held twice, as far as was checked"
