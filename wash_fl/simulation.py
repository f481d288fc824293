"""A whole fleet on one machine: start what Flower needs, follow the run, stop everything that was started."""

import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from wash_fl.config import RunConfig
from wash_fl.errors import RunError
from wash_fl.report.run_folder import RunFolder

OnEvent = Callable[[dict[str, Any]], None]

MARK = "WASH_FL_SIMULATION"
"""Environment variable that every process of a simulation inherits, so that none is left behind."""

LOG, MEMBERS = "flower.log", "members"
START_SECONDS = 120.0
STOP_SECONDS = 20.0


def simulate(config: RunConfig, on_event: OnEvent) -> RunFolder:
    """Run the main job on Flower's simulation engine.

    A SuperLink of its own is started on a free port of the loopback interface, with a home of its own, and
    stopped again with everything below it: whether the run succeeds, fails, or is interrupted.

    Parameters
    ----------
    config : RunConfig
        The run's options.
    on_event : callable
        Gets each event of the run's metrics file as it is written.

    Returns
    -------
    RunFolder
        Of the finished run.

    Raises
    ------
    RunError
        If Flower cannot be started, or the run fails; the message names Flower's log.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after everything is stopped.
    """
    config = _on_this_machine(config)
    folder = Path(config.fleet.run_dir) / config.fleet.run_name
    # A short path: Ray makes Unix sockets below it, whose paths are limited to about 100 bytes.
    home = Path(tempfile.mkdtemp(prefix="wash-", dir="/tmp" if Path("/tmp").is_dir() else None))
    with _interruptible():
        try:
            with _flower(home, config) as run:
                return _follow(run, folder, on_event, home / LOG)
        finally:
            if folder.is_dir() and (home / LOG).is_file():
                shutil.copyfile(home / LOG, folder / LOG)
            with suppress(OSError):  # the members' folder, which is empty after a run that finished
                (folder / MEMBERS).rmdir()
            shutil.rmtree(home, ignore_errors=True)


def app_folder() -> Path:
    """Return the Flower app that comes with the package: a checkout's root, or the installed copy."""
    package = Path(__file__).resolve().parent
    for folder in (package.parent, package.parent / "wash_fl_app"):
        if (folder / "clients" / "client_app.py").is_file():
            return folder
    raise RunError("the Flower app (clients/, server/) is not beside the package: install wash-fl again.")


def _on_this_machine(config: RunConfig) -> RunConfig:
    """Return the options with absolute paths and a name, for they are read in other processes."""
    run_dir = Path(config.fleet.run_dir).expanduser().resolve()
    name = config.fleet.run_name
    if not name:
        base = f"{Path(config.task.task).stem}-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}"
        names = (base if attempt == 1 else f"{base}-{attempt}" for attempt in range(1, 1000))
        name = next(each for each in names if not (run_dir / each).exists())
    elif (run_dir / name).exists():
        raise RunError(f"the run {name!r} exists in {run_dir}: choose another run-name, or leave it empty.")
    task = config.task.task
    changes = {
        "task": str(Path(task).expanduser().resolve()) if task.endswith(".py") else task,
        "run-dir": str(run_dir),
        "run-name": name,
        "state-dir": config.fleet.state_dir or str(run_dir / name / MEMBERS),
    }
    return RunConfig.from_mapping(config.to_mapping() | changes)


@contextmanager
def _flower(home: Path, config: RunConfig) -> Iterator[subprocess.Popen[bytes]]:
    """Start a SuperLink and submit the run; on leaving, stop every process that came of it."""
    if importlib.util.find_spec("ray") is None:
        raise RunError("simulation needs Flower's simulation engine: pip install 'wash-fl[simulation]'.")
    port, mark = _free_port(), uuid.uuid4().hex
    address = f"127.0.0.1:{port}"
    connection = f'[superlink]\ndefault = "own"\n[superlink.own]\naddress = "{address}"\ninsecure = true\n'
    (home / "config.toml").write_text(connection)
    options = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.to_mapping().items())
    (home / "run.toml").write_text(options)
    environment = _environment(home, mark)
    with (home / LOG).open("wb") as log:
        try:
            serve = "flower-superlink --insecure --simulation --isolation subprocess --host 127.0.0.1 --port"
            superlink = _start([*serve.split(), str(port)], environment, log)
            _wait_for(superlink, f"http://{address}/health", home / LOG)
            size = f"num-supernodes={config.training.members} client-resources-num-cpus=1"
            submit = ["flwr", "run", str(app_folder()), "own", "--stream", "--federation-config", size]
            yield _start([*submit, "--run-config", str(home / "run.toml")], environment, log)
        finally:
            _stop_all(mark)


def _environment(home: Path, mark: str) -> dict[str, str]:
    return os.environ | {
        MARK: mark,
        "PATH": os.pathsep.join([*_tools(home), os.environ.get("PATH", "")]),
        # A task of the user's own is imported from where the command was typed.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(home),
        # What a process that is stopped leaves behind goes with the home.
        "TMPDIR": str(home),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _tools(home: Path) -> list[str]:
    """Return the folders in which Flower finds its own commands."""
    tools = Path(sys.executable).parent
    if shlex.quote(str(tools)) == str(tools):
        return [str(tools)]
    # Ray hands the interpreter's path to a shell without quoting it, so one with a space never starts a
    # worker: give the process that starts Ray another path to the same environment.
    (home / "env").symlink_to(tools.parent)
    (home / "bin").mkdir()
    wrapper = home / "bin" / "flwr-simulation"
    interpreter = home / "env" / tools.name / Path(sys.executable).name
    wrapper.write_text(f'#!/bin/sh\nexec {interpreter} {shlex.quote(str(tools / wrapper.name))} "$@"\n')
    wrapper.chmod(0o755)
    return [str(home / "bin"), str(tools)]


def _start(command: list[str], environment: dict[str, str], log: Any) -> "subprocess.Popen[bytes]":
    # Sessions of their own: Ctrl-C in the terminal reaches this process alone, which then stops them.
    return subprocess.Popen(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait_for(superlink: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if superlink.poll() is not None:
            raise RunError(f"Flower's SuperLink did not start: {_last_words(log)}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RunError(f"Flower's SuperLink did not answer within {START_SECONDS:g} s: {_last_words(log)}")


def _follow(run: "subprocess.Popen[bytes]", path: Path, on_event: OnEvent, log: Path) -> RunFolder:
    """Hand out the run's events as they are written, until it has finished."""
    seen = 0
    while True:
        # Asked before the events are read, so that the last ones are not missed.
        ended = run.poll() is not None
        events = list(RunFolder(path).events())
        for event in events[seen:]:
            on_event(event)
            if event["event"] == "failed":
                raise RunError(f"the run failed: {event['reason']} (Flower's log: {path / LOG})")
            if event["event"] == "finished":
                _wait_until_ended(run)
                return RunFolder.open(path)
        seen = len(events)
        if ended:
            raise RunError(f"Flower ended before the run did: {_last_words(log)}")
        time.sleep(0.2)


def _wait_until_ended(run: "subprocess.Popen[bytes]") -> None:
    """Let Flower end the run in its own way, for a while."""
    with suppress(subprocess.TimeoutExpired):
        run.wait(STOP_SECONDS)


def _last_words(log: Path) -> str:
    """Return the most telling line of Flower's log."""
    lines = [line.strip(" │\t") for line in log.read_text(errors="replace").splitlines()]
    told = [line for line in lines if "Error" in line or "error" in line] or [each for each in lines if each]
    return told[-1][:300] if told else f"it said nothing in {log}."


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop_all(mark: str) -> None:
    """Stop every process that carries the mark, and what it started: kindly, then for good.

    Ray detaches its daemons from their parents, so a process group does not have them all; and its agents
    overwrite their environment with a title, so the mark does not either.
    """
    import psutil

    deadline = time.monotonic() + STOP_SECONDS
    known: set[Any] = set()
    kindly = True
    # Until none is found: one that is being stopped may start another.
    while time.monotonic() < deadline:
        known |= _family(mark)
        alive = [process for process in known if process.is_running()]
        if not alive:
            return
        for process in alive:
            with suppress(psutil.Error):
                process.terminate() if kindly else process.kill()
        psutil.wait_procs(alive, timeout=STOP_SECONDS / 4)
        kindly = False


def _family(mark: str) -> set[Any]:
    import psutil

    found: set[Any] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.add(process)
                found.update(process.children(recursive=True))
    return found


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, and let the first one alone count."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, interrupt) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
