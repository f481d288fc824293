"""A whole fleet on one machine: start what Flower needs, follow the run, stop everything that was started."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wash_fl.config import RunConfig
from wash_fl.core.plane import plane_of
from wash_fl.deploy import processes
from wash_fl.deploy.engine import Watch, failure
from wash_fl.deploy.processes import MARK
from wash_fl.deploy.shipping import app_folder
from wash_fl.deploy.submitting import (
    OnEvent,
    count_events,
    follow,
    keep_log,
    with_absolute_paths,
    write_options,
)
from wash_fl.errors import RunError
from wash_fl.extras import install_hint
from wash_fl.runs.folder import LOG, MEMBERS, RunFolder
from wash_fl.system.interrupts import interruptible

__all__ = ["MARK", "simulate"]

MEMBER_BYTES = 600e6
"""Memory of a simulated client before its model: mostly PyTorch and Flower."""


def simulate(config: RunConfig, on_event: OnEvent) -> RunFolder:
    """Run the main job on Flower's simulation engine.

    A SuperLink of its own is started on a free port of the loopback interface, with a home of its own, and
    stopped again with everything below it: whether the run succeeds, fails, or is interrupted. A run of the
    same name that did not finish goes on where it was.

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
    _check_room(config)
    config = with_absolute_paths(config)
    with interruptible(), RunFolder.claimed(config) as run:
        folder = run.path
        if not config.fleet.state_dir:
            config = RunConfig.from_mapping(config.to_mapping() | {"state-dir": str(folder / MEMBERS)})
        # A short path: Ray makes Unix sockets below it, whose paths are limited to about 100 bytes.
        home = Path(tempfile.mkdtemp(prefix="wash-", dir="/tmp" if Path("/tmp").is_dir() else None))
        try:
            before = count_events(folder)
            mark = uuid.uuid4().hex
            with _flower(home, config, mark, folder / LOG) as submitted:
                watch = Watch(mark, folder / LOG)
                return _wait_for(submitted, folder, on_event, watch, log=home / LOG, before=before)
        finally:
            keep_log(home / LOG, folder)
            with suppress(OSError):  # the members' folder, which is empty after a run that finished
                (folder / MEMBERS).rmdir()
            shutil.rmtree(home, ignore_errors=True)


def _check_room(config: RunConfig) -> None:
    """Refuse a fleet whose members have to be in memory all at once, and do not fit.

    Raises
    ------
    RunError
        If that is so.
    """
    import psutil

    if not plane_of(config.exchange).at_once:
        return
    members, free = config.training.members, psutil.virtual_memory().available
    if members * MEMBER_BYTES > free:
        raise RunError(
            f"{members} members on the stream plane train all at once, in processes of about "
            f"{MEMBER_BYTES / 1e9:g} GB each, and {free / 1e9:.1f} GB are free: lower members, use "
            "exchange-plane = round (its members take turns), or a real fleet."
        )


@contextmanager
def _flower(home: Path, config: RunConfig, mark: str, final_log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a SuperLink and submit the run; on leaving, stop every process that came of it.

    ``final_log`` is where the log will be when this process has ended.
    """
    if importlib.util.find_spec("ray") is None:
        raise RunError(f"simulation needs Flower's simulation engine: {install_hint('simulation')}.")
    port = processes.free_port()
    address = f"127.0.0.1:{port}"
    connection = f'[superlink]\ndefault = "own"\n[superlink.own]\naddress = "{address}"\ninsecure = true\n'
    (home / "config.toml").write_text(connection, encoding="utf-8")
    write_options(config, home / "run.toml")
    environment = _environment(home, mark)
    try:
        serve = "flower-superlink --insecure --simulation --isolation subprocess --host 127.0.0.1 --port"
        superlink = processes.start([*serve.split(), str(port)], environment, home / LOG)
        processes.wait_until_healthy(
            superlink, f"http://{address}/health", home / LOG, name="Flower's SuperLink", final_log=final_log
        )
        members = config.training.members
        size = f"num-supernodes={members} client-resources-num-cpus=1"
        if plane_of(config.exchange).at_once:
            # All members have to be at work at once, or those at work would wait for the others.
            size += f" init-args-num-cpus={max(members, os.cpu_count() or 1)}"
        submit = ["flwr", "run", str(app_folder()), "own", "--stream", "--federation-config", size]
        yield processes.start([*submit, "--run-config", str(home / "run.toml")], environment, home / LOG)
    finally:
        processes.stop_marked(mark)


def _environment(home: Path, mark: str) -> dict[str, str]:
    inherited = processes.flower_environment(home, mark)
    # Somebody else's cluster: Ray would wait for it, and take no members to it.
    inherited.pop("RAY_ADDRESS", None)
    return inherited | {
        "PATH": os.pathsep.join([*_tools(home), os.environ.get("PATH", "")]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(home),
        # What a process that is stopped leaves behind goes with the home.
        "TMPDIR": str(home),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
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
    wrapper.write_text(
        f'#!/bin/sh\nexec {interpreter} {shlex.quote(str(tools / wrapper.name))} "$@"\n', encoding="utf-8"
    )
    wrapper.chmod(0o755)
    return [str(home / "bin"), str(tools)]


def _wait_for(
    run: "subprocess.Popen[bytes]",
    folder: Path,
    on_event: OnEvent,
    watch: Watch,
    *,
    log: Path,
    before: int,
) -> RunFolder:
    """Hand out the run's events as they are written, until it has finished."""

    def has_ended() -> bool:
        watch.check()
        return run.poll() is not None

    for event in follow(folder, has_ended, before):
        on_event(event)
        if event["event"] in ("failed", "finished"):
            # Let Flower end the run in its own way, for a while: what is in its log comes with a delay.
            with suppress(subprocess.TimeoutExpired):
                run.wait(processes.STOP_SECONDS)
        if event["event"] == "failed":
            reason = event["reason"].rstrip(".")
            raise RunError(f"the run failed: {reason} (Flower's log: {folder / LOG}).")
        if event["event"] == "finished":
            return RunFolder.open(folder)
    why = failure(log) or f"Flower ended before the run did: {processes.last_words(log)}"
    raise RunError(f"{why} (Flower's log: {folder / LOG}).")
