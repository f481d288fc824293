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

    found = look(RunFolder.open(run), states or [run / MEMBERS])
    if as_json:
        print(json.dumps(to_json(found)))
    else:
        table = Table("member", "state", title=f"{escape(found.run)}: {found.settled} exchanges settled")
        for member, text in sorted(found.members.items()):
            table.add_row(str(member), escape(text))
        out.print(table)
        for line in [
            f"{found.waiting} deliveries wait in the journal; "
            f"{found.values} values of the last exchange were compared",
            *(f"not checked: {each}" for each in found.unchecked),
            *(f"PROBLEM: {each}" for each in found.problems),
            _verdict(found),
        ]:
            if line:
                out.print(line, markup=False, highlight=False, soft_wrap=True)
    if found.problems or not found.checked:
        raise typer.Exit(1)


def _verdict(found: "Audit") -> str:
    if found.problems:
        return ""
    if not found.checked:
        return "nothing was checked: no member's state is in these folders, or none can be used"
    return "no value is lost or held twice, as far as was checked"
