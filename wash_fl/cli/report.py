"""``wash-fl report``: a run or a comparison on one page."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from wash_fl.cli.terminal import err, out, say

COMPARISON: Final = ("comparison.json", "wash_fl.lab.compare.writing")
"""The file by which the folder of a comparison is known, and what writes its page."""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(report)


def report(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a comparison's.")],
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the page goes; by default report.html in the folder."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Write the figures as PNG files too, into this folder.")
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(help="Write the run's curves for TensorBoard too, into a folder of its name in here."),
    ] = None,
) -> None:
    """Tell of a run or a comparison on one page: HTML that needs no network and reads well on a phone.

    FOLDER is a run's, such as runs/digits-2026-01-31-120000, or what compare has made; neither need be
    finished.
    """
    from wash_fl.report import writing

    plan, laboratory = COMPARISON
    writer: Any = import_module(laboratory) if (folder / plan).exists() else writing
    # TensorBoard first: the extra that brings it has what the others need.
    more = [] if tensorboard is None else [writing.write_events(folder, tensorboard)]
    more += [] if figures is None else writer.write_figures(folder, figures)
    page = writer.write_page(folder, output, lambda line: say(err, f"{line}: the page is without it"))
    for path in (page, *more):
        out.print(str(path), markup=False, highlight=False, soft_wrap=True)
