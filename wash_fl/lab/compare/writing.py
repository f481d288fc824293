"""A comparison's report as files: its page, and on request its figures alone."""

from collections.abc import Callable
from pathlib import Path

from wash_fl.lab.compare.comparison import Folder
from wash_fl.lab.compare.figures import comparison_figures
from wash_fl.lab.compare.page import comparison_page
from wash_fl.lab.compare.table import table
from wash_fl.report.writing import save_page
from wash_fl.runs.figures import write_png


def write_page(
    folder: Path, output: Path | None = None, on_missing: Callable[[str], None] = lambda line: None
) -> Path:
    """Write the page of a comparison and return its path.

    Parameters
    ----------
    folder : Path
        The comparison's.
    output : Path, optional
        The page's file; by default in that folder.
    on_missing : callable
        Not called: one that is damaged has no page. :func:`wash_fl.report.writing.write_page` takes it, too.

    Raises
    ------
    RunError
        If the page cannot go where it should.
    DataError
        If the comparison is damaged.
    """
    return save_page(comparison_page(Folder.open(folder)), folder, output)


def write_figures(folder: Path, output: Path) -> list[Path]:
    """Write the figures of a comparison as PNG files into another folder; return their paths.

    Raises
    ------
    DataError
        If the comparison is damaged.
    """
    comparison = Folder.open(folder)
    return write_png(comparison_figures(comparison, table(comparison)), output)
