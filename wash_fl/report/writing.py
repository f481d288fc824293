"""A report's files: the page, and on request its figures alone, and what TensorBoard reads."""

from collections.abc import Callable
from pathlib import Path

from wash_fl.errors import RunError
from wash_fl.files import write_text
from wash_fl.report.page import Page
from wash_fl.report.run_page import drawn_figures, run_page
from wash_fl.report.scalars import run_scalars, write_scalars
from wash_fl.runs.figures import write_png
from wash_fl.runs.folder import REPORT
from wash_fl.runs.record import RunRecord


def write_page(
    folder: Path, output: Path | None = None, on_missing: Callable[[str], None] = lambda line: None
) -> Path:
    """Write the page of a run and return its path.

    Parameters
    ----------
    folder : Path
        The run's.
    output : Path, optional
        The page's file; by default in that folder.
    on_missing : callable
        Gets a line about each thing of the run that cannot be read, and that the page is without.

    Raises
    ------
    RunError
        If the folder is not a run's, or the page cannot go where it should.
    """
    record = RunRecord.read(folder)
    for line in record.missing:
        on_missing(line)
    return save_page(run_page(record), folder, output)


def save_page(page: Page, folder: Path, output: Path | None = None) -> Path:
    """Write a page into the folder that it is about, or where it is asked for, and return its path.

    Raises
    ------
    RunError
        If there is a folder in its place.
    """
    path = folder / REPORT if output is None else output
    if path.is_dir():
        raise RunError(f"{path} is a folder, and the page is a file: give its name, such as {path / REPORT}.")
    write_text(path, page.html())
    return path


def write_figures(folder: Path, output: Path) -> list[Path]:
    """Write the figures of a run as PNG files into another folder; return their paths.

    Raises
    ------
    RunError
        If the folder is not a run's.
    """
    return write_png(drawn_figures(RunRecord.read(folder)), output)


def write_events(run: Path, folder: Path) -> Path:
    """Write a run's curves for TensorBoard and return the folder they are in, named like the run.

    Raises
    ------
    RunError
        If the run's folder is not one, or the files cannot go where they should.
    """
    record = RunRecord.read(run)
    path = folder / record.name
    write_scalars(path, run_scalars(record))
    return path
