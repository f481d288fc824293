"""Processes of our own: started with a mark that all they start inherits, found by it, and stopped."""

import os
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wash_fl.errors import RunError
from wash_fl.files import private_opener
from wash_fl.sources import PACKAGE

MARK = "WASH_FL_STARTED_BY"
"""Environment variable that every process of ours inherits, so that none is left behind."""

ROLE = "WASH_FL_ROLE"
"""Environment variable that tells apart the parts of what one mark stands for."""

SPEAK_UTF8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}
"""Environment of whoever writes into a log: Flower's commands fail where they cannot draw a box."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TELLING = (
    re.compile(r"╭─ Error ─+╮\n(.+?)╰", re.DOTALL),  # what Flower's command line says
    re.compile(r"^[ \t]*((?:\w+\.)*\w+(?:Error|Exception): .+)$", re.MULTILINE),  # a traceback's last line
    re.compile(r"Exit Code: \d+\n(.+?)(?:\n[ \t]*\n|For more|\Z)", re.DOTALL),  # why a daemon ends
    re.compile(r"^(.*[Ee]rror.*)$", re.MULTILINE),
)
"""What says why a process ended, the most telling first."""

START_SECONDS = 120.0
STOP_SECONDS = 20.0


def flower_environment(home: Path, mark: str) -> dict[str, str]:
    """Return the environment in which Flower's commands run as ours: offline, quiet, and with our mark.

    Parameters
    ----------
    home : Path
        Flower's own folder: connections, and the apps that it unpacks.
    mark : str
        By which these processes are found again.
    """
    return os.environ | {
        MARK: mark,
        # Flower's processes start each other by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(_import_path()),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **SPEAK_UTF8,
    }


def _import_path() -> list[str]:
    """Return where Flower's processes look for modules before the installed ones."""
    # They run the code that this process runs, also if that is a checkout's which nobody has installed.
    checkout = [PACKAGE.parent] if (PACKAGE.parent / "pyproject.toml").is_file() else []
    # A task of the user's own is imported from where the command was typed.
    return [*map(str, [*checkout, Path.cwd()]), *filter(None, [os.environ.get("PYTHONPATH")])]


def start(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, way: Sequence[str] = ()
) -> "subprocess.Popen[bytes]":
    """Start a command that was installed beside this interpreter; what it says is appended to ``log``.

    It gets a session of its own: Ctrl-C in the terminal reaches this process alone, which then stops it, and
    it outlives the terminal. The words of ``way`` come before it, and become it.
    """
    with open(log, "ab", opener=private_opener) as file:
        return subprocess.Popen(
            [*way, str(Path(sys.executable).with_name(command[0])), *command[1:]],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until_healthy(
    process: "subprocess.Popen[bytes]",
    url: str,
    log: Path,
    *,
    name: str,
    authority: Path | None = None,
    timeout: float = START_SECONDS,
    final_log: Path | None = None,
) -> None:
    """Wait until a server answers.

    Parameters
    ----------
    process : subprocess.Popen
        The server.
    url : str
        What to ask it.
    log : Path
        Where it writes, for the reason if it does not start.
    name : str
        What to call it in an error.
    authority : Path, optional
        The certificate by which to know it, for https.
    timeout : float
        Seconds to wait.
    final_log : Path, optional
        Where the log is to be found afterwards, if not there.

    Raises
    ------
    RunError
        If the process ends, or does not answer in time.
    """
    context = ssl.create_default_context(cafile=str(authority)) if authority else None
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RunError(f"{name} did not start: {last_words(log)} (log: {final_log or log}).")
        try:
            with urllib.request.urlopen(url, timeout=2, context=context):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RunError(
        f"{name} did not answer within {timeout:g} s: {last_words(log)} (log: {final_log or log})."
    )


def read_log(log: Path, after: int = 0) -> str:
    """Return what a log of Flower's says, from a byte on, without its colours."""
    with log.open("rb") as file:
        file.seek(after)
        return _COLOURS.sub("", file.read().decode(errors="replace"))


def last_words(log: Path, after: int = 0) -> str:
    """Return the most telling words of a log of Flower's, on one line and without a full stop.

    Parameters
    ----------
    log : Path
        The file.
    after : int
        Bytes at its beginning that are an earlier process's.
    """
    try:
        text = read_log(log, after)
    except OSError:
        text = ""
    lines = [line for line in text.splitlines() if any(character.isalpha() for character in line)]
    phrases = next((matches for each in _TELLING if (matches := each.findall(text))), lines)
    words = " ".join(phrases[-1].replace("│", " ").split()) if phrases else ""
    return words[:300].rstrip(". ") or "it said nothing"


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    """Return whether a port of the loopback interface can be listened on."""
    with socket.socket() as probe:
        # As the servers do: connections of one that has just ended are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def marked(mark: str, roles: Collection[str] | None = None) -> set[Any]:
    """Return every process that carries the mark, and what it started, as ``psutil.Process``.

    Ray detaches its daemons from their parents, so a process group does not have them all; and its agents
    overwrite their environment with a title, so the mark does not either.

    Parameters
    ----------
    mark : str
        The value of :data:`MARK`.
    roles : collection of str, optional
        Only those with one of these values of :data:`ROLE`.
    """
    import psutil

    carriers: set[Any] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid():
                continue
            environment = process.environ()
            if environment.get(MARK) == mark and (roles is None or environment.get(ROLE) in roles):
                carriers.add(process)
                carriers.update(process.children(recursive=True))
    return carriers


def stop_marked(mark: str, roles: Collection[str] | None = None) -> int:
    """Stop every process that :func:`marked` finds: kindly, then for good.

    Returns
    -------
    int
        How many there were.
    """
    import psutil

    deadline = time.monotonic() + STOP_SECONDS
    processes: set[Any] = set()
    kindly = True
    # Until none is found: one that is being stopped may start another.
    while time.monotonic() < deadline:
        processes |= set(filter(is_alive, marked(mark, roles)))
        alive = list(filter(is_alive, processes))
        if not alive:
            break
        for process in alive:
            with suppress(psutil.Error):
                process.terminate() if kindly else process.kill()
        psutil.wait_procs(alive, timeout=STOP_SECONDS / 4)
        kindly = False
    return len(processes)


def is_alive(process: Any) -> bool:
    """Return whether a ``psutil.Process`` runs; one that ended and that nobody has waited for does not."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
