"""Named points at which a process can be killed, paused, or cut off, if a test asks for it.

In real processes the environment says what to kill: ``WASH_FL_FAULTS`` is a plan, or ``@`` and the path of a
file that holds one, which may be written while they run. In the folder ``WASH_FL_FAULTS_DIR`` they remember
what was done, so that a restarted process lives on. Within one process (the in-process grid),
:func:`installed` does the same with an exception in place of SIGKILL.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wash_fl.errors import ConfigError
from wash_fl.faults.fault import MEMBER_POINTS, SERVER_POINTS, Fault, Kind
from wash_fl.faults.ledger import FolderLedger
from wash_fl.faults.plan import FaultPlan

PLAN = "WASH_FL_FAULTS"
FOLDER = "WASH_FL_FAULTS_DIR"

_installed: FaultPlan | None = None


class Killed(BaseException):
    """Stands for SIGKILL within one process; a BaseException, for nothing may go on after it."""


def reach(point: str, *, member: int | None = None, exchange: int | None = None) -> Fault | None:
    """Die or pause here if the plan says so; return the fault if it is that a connection is cut here.

    Parameters
    ----------
    point : str
        One of ``plan.MEMBER_POINTS`` or, for the server, ``plan.SERVER_POINTS``.
    member : int, optional
        Whose process this is; None: the server's.
    exchange : int, optional
        Which exchange it works on.
    """
    if _installed is None and PLAN not in os.environ:
        return None
    assert point in (SERVER_POINTS if member is None else MEMBER_POINTS), point
    plan = _installed or from_environment(os.environ)
    fault = plan.at(point, member=member, exchange=exchange) if plan else None
    if fault is None or fault.kind is Kind.CUT:
        return fault
    if fault.kind is Kind.PAUSE:
        time.sleep(fault.by)
        return None
    if _installed is not None:
        raise Killed(str(fault))
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def from_environment(environment: Mapping[str, str]) -> FaultPlan | None:
    """Return the plan that an environment asks for, or None.

    Raises
    ------
    ConfigError
        If it is no plan, or there is no folder to remember it in.
    """
    text = environment.get(PLAN, "")
    if text.startswith("@"):
        path = Path(text[1:])
        text = path.read_text() if path.exists() else ""
    if not text.strip():
        return None
    folder = environment.get(FOLDER, "")
    if not folder:
        raise ConfigError(
            f"{PLAN} is set without {FOLDER}: name a folder in which the processes remember what was "
            "injected, or each would die again after its restart."
        )
    return FaultPlan.parse(text, FolderLedger(Path(folder)))


@contextmanager
def installed(plan: FaultPlan) -> Iterator[FaultPlan]:
    """Make the points of this process raise :class:`Killed` as a plan says, while the block lasts."""
    global _installed  # noqa: PLW0603 (the points are reached from everywhere)
    before, _installed = _installed, plan
    try:
        yield plan
    finally:
        _installed = before
