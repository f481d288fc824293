"""Runs over a link, by a recipe or by Flower's own FedAvg, and what is seen of them from outside."""

import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flwr.cli.build import build_fab_from_disk

from wash_fl.config import RunConfig
from wash_fl.core.recipes import RECIPES
from wash_fl.deploy import processes
from wash_fl.deploy.control import started_run
from wash_fl.deploy.launch import Fleet
from wash_fl.deploy.serving import serve
from wash_fl.deploy.shipping import app_folder
from wash_fl.deploy.submitting import OnEvent, follow, with_absolute_paths, write_options
from wash_fl.errors import RunError, WashError
from wash_fl.lab.network.network import Network
from wash_fl.lab.time_limit import TimeUp, time_limit

FEDAVG: Final = "fedavg"
METHODS: Final = (FEDAVG, *RECIPES)

BEGIN: Final = "begin"
"""The first moment of a run: it is submitted."""

_APP: Final = {
    "server.server_app:app": "wash_fl.lab.bench.fedavg_server:app",
    "clients.client_app:app": "wash_fl.lab.bench.fedavg_client:app",
}
"""The parts of the app that comes with the package, and what takes their places under FedAvg."""

Counts = Callable[[], tuple[int, int]]


@dataclass(frozen=True)
class Moment:
    """Something that was seen of a run.

    Attributes
    ----------
    event : str
        What, in the words of the run's metrics.
    round : int
        Of which round; 0 of none.
    accuracy : float or None
        The model's, or the members' mean, if it says one.
    seconds : float
        When, on a clock of its own.
    up, down : int
        Bytes that all devices' interfaces had sent and got by then.
    """

    event: str
    round: int
    accuracy: float | None
    seconds: float
    up: int
    down: int


@dataclass(frozen=True)
class Timeline:
    """A run as it was seen.

    Attributes
    ----------
    moments : list of Moment
        In order; the first is its beginning.
    failure : str
        Why it did not get to its end; empty if it did.
    """

    moments: list[Moment]
    failure: str


def run_over(
    network: Network, fleet: Fleet, method: str, config: RunConfig, *, limit: float, home: Path
) -> Timeline:
    """Do a run, and watch it.

    Parameters
    ----------
    network : Network
        Whose bytes are counted.
    fleet : Fleet
        In that network.
    method : str
        One of :data:`METHODS`.
    config : RunConfig
        The run's options, with a name.
    limit : float
        Seconds after which it is stopped.
    home : Path
        A folder for what it needs meanwhile.
    """
    moments: list[Moment] = []

    def note(event: dict[str, Any]) -> None:
        up, down = (sum(each.bytes for each in way) for way in zip(*network.counts(), strict=True))
        now = time.monotonic()
        moments.append(Moment(event["event"], event.get("round", 0), _accuracy(event), now, up, down))

    failure = ""
    note({"event": BEGIN})
    try:
        with time_limit(limit):
            if method == FEDAVG:
                _fedavg(fleet, config, note, home)
            else:
                serve(config, fleet.control, note, restarts=0)
    except TimeUp:
        failure = f"not done after {limit:g} s"
    except WashError as error:
        failure = str(error)
    return Timeline(moments, failure)


def fedavg_app(folder: Path) -> Path:
    """Make the Flower app of FedAvg: what comes with the package, as it ships it, with other parts in it.

    Parameters
    ----------
    folder : Path
        Where it is made, as a new folder.

    Raises
    ------
    RunError
        If the package's app is not what it was when this was written.
    """
    source = app_folder()
    project = (source / "pyproject.toml").read_text(encoding="utf-8")
    for part, replacement in _APP.items():
        if project.count(f'"{part}"') != 1:
            raise RunError(f"{source / 'pyproject.toml'} does not name {part} once: install wash-fl again.")
        project = project.replace(f'"{part}"', f'"{replacement}"')
    folder.mkdir()
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    for pattern in tomllib.loads(project)["tool"]["flwr"]["app"]["fab-include"]:
        for path in filter(Path.is_file, source.glob(pattern)):
            copy = folder / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return folder


def app_bytes(folder: Path) -> int:
    """Return how large the app of a folder is when it travels to a device."""
    return len(build_fab_from_disk(folder))


def _fedavg(fleet: Fleet, config: RunConfig, note: OnEvent, home: Path) -> None:
    config = with_absolute_paths(config)
    folder = Path(config.fleet.run_dir) / config.fleet.run_name
    folder.mkdir(parents=True)
    options, log = home / "fedavg.toml", home / f"{config.fleet.run_name}.log"
    write_options(config, options)
    stream = fleet.control.submit(fedavg_app(home / config.fleet.run_name), options, log)
    try:
        for event in follow(folder, lambda: stream.poll() is not None):
            note(event)
            if event["event"] == "finished":
                return
        raise RunError(f"Flower ended FedAvg's run before its end: {processes.last_words(log)}.")
    except KeyboardInterrupt:
        run = started_run(log)
        if run is not None:
            with suppress(RunError):
                fleet.control.stop(run)
        raise
    finally:
        if stream.poll() is None:
            stream.terminate()
            with suppress(subprocess.TimeoutExpired):
                stream.wait(processes.STOP_SECONDS)


def _accuracy(event: dict[str, Any]) -> float | None:
    """Return the accuracy that an event tells: of the model, or the mean of the members'."""
    if "accuracy" in event:
        return float(event["accuracy"])
    values = [each["accuracy"] for each in event.get("members", {}).values() if "accuracy" in each]
    return sum(values) / len(values) if values else None
