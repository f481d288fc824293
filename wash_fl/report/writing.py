"""A report's files: the page, and on request its figures alone, and what TensorBoard reads."""

from pathlib import Path

from wash_fl.compare.comparison import PLAN, Folder
from wash_fl.compare.table import table
from wash_fl.errors import RunError
from wash_fl.files import write_text
from wash_fl.report.comparison_figures import comparison_figures
from wash_fl.report.comparison_page import comparison_page
from wash_fl.report.figures import write_png
from wash_fl.report.run_folder import REPORT
from wash_fl.report.run_page import drawn_figures, run_page
from wash_fl.report.run_record import RunRecord
from wash_fl.report.scalars import run_scalars, write_scalars


def write_page(folder: Path, output: Path | None = None) -> Path:
    """Write the page of a run or a comparison and return its path.

    Parameters
    ----------
    folder : Path
        The run's folder, or the comparison's.
    output : Path, optional
        The page's file; by default in that folder.

    Raises
    ------
    RunError
        If the folder is neither's, or a run's that is damaged, or the page cannot go where it should.
    DataError
        If it is a comparison's that is damaged.
    """
    if (folder / PLAN).exists():
        page = comparison_page(Folder.open(folder))
    else:
        page = run_page(RunRecord.read(folder))
    path = folder / REPORT if output is None else output
    if path.is_dir():
        raise RunError(f"{path} is a folder, and the page is a file: give its name, such as {path / REPORT}.")
    write_text(path, page.html())
    return path


def write_figures(folder: Path, output: Path) -> list[Path]:
    """Write the figures of a run or a comparison as PNG files into another folder; return their paths.

    Raises
    ------
    RunError
        If the folder is neither's, or a run's that is damaged.
    DataError
        If it is a comparison's that is damaged.
    """
    if (folder / PLAN).exists():
        comparison = Folder.open(folder)
        return write_png(comparison_figures(comparison, table(comparison)), output)
    return write_png(drawn_figures(RunRecord.read(folder)), output)


def write_events(run: Path, folder: Path) -> Path:
    """Write a run's curves for TensorBoard and return the folder they are in, named like the run.

    Raises
    ------
    RunError
        If the run's folder is not one or is damaged, or the files cannot go where they should.
    """
    record = RunRecord.read(run)
    path = folder / record.name
    write_scalars(path, run_scalars(record))
    return path
