"""The journal of a run, in memory or in the file that its server is given."""

from pathlib import Path

from wash_fl.core.layout import Layout
from wash_fl.core.plane import plane_of
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.terms import Terms, run_identity
from wash_fl.storage.sqlite_store import SqliteStore


def open_journal(path: Path | None, terms: Terms, layout: Layout) -> Journal:
    """Return the journal of a run, which goes on where it was if the file is there.

    Parameters
    ----------
    path : Path, optional
        Its file; in memory without one.
    terms : Terms
        The terms of the run: their identity must be the file's, and they say how safely each exchange is
        written down.
    layout : Layout
        What is exchanged; the file's must be the same.

    Raises
    ------
    RunError
        If another server has the file open.
    StateError
        If the file is damaged, no journal, or of another run or version.
    """
    if path is None:
        return Journal.in_memory()
    store = SqliteStore.open(
        path,
        run_identity(terms),
        layout.fingerprint,
        synchronous=plane_of(terms.exchange).synchronous,
        anchored=terms.exchange.anchored,
    )
    return Journal(store)
