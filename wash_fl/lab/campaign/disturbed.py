"""One run of a campaign: a fleet of its own, what happens to it, and what came of it."""

import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wash_fl.config import RunConfig
from wash_fl.deploy import processes
from wash_fl.deploy.launch import Fleet
from wash_fl.deploy.serving import serve
from wash_fl.errors import WashError
from wash_fl.lab.campaign.disks import SmallDisk
from wash_fl.lab.campaign.judge import Outcome
from wash_fl.lab.campaign.plan import DISK, MEMBERS, Disturbance, Plan
from wash_fl.lab.campaign.scene import Scene
from wash_fl.lab.network.network import Network, is_gone
from wash_fl.lab.time_limit import TimeUp, time_limit
from wash_fl.protocol.journal import Journal
from wash_fl.runs.audit import audit
from wash_fl.runs.folder import EXCHANGES, JOURNAL, RunFolder
from wash_fl.runs.json_lines import json_lines
from wash_fl.storage.sqlite_store import SqliteStore

NAME: Final = "run"
TEMPORARY: Final = "tmp"

SETTLE_SECONDS: Final = 200.0
"""How long is waited for what still happens when the run has ended: a node that comes back, above all."""


@dataclass
class Schedule:
    """What happens when, and what has become of it.

    Attributes
    ----------
    plan : Plan
        What is to happen.
    scene : Scene
        To what.
    seed : int
        Of the campaign, for what is drawn on the spot.
    """

    plan: Plan
    scene: Scene
    seed: int
    results: dict[int, str] = field(default_factory=dict)
    _threads: dict[int, threading.Thread] = field(default_factory=dict)

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Begin what is to happen after an event."""
        rounds = event["round"] if event["event"] == "round" else 0
        if event["event"] not in ("start", "resume", "round"):
            return
        for index, each in enumerate(self.plan.disturbances):
            if each.after <= rounds and index not in self._threads:
                thread = threading.Thread(target=self._do, args=(index, each), daemon=True)
                self._threads[index] = thread
                thread.start()

    def finish(self) -> list[str]:
        """Wait for what has begun, and return why each did not happen; empty where it did."""
        deadline = time.monotonic() + SETTLE_SECONDS
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        return [
            self.results.get(index, "it has not ended" if index in self._threads else "the run was over")
            for index in range(len(self.plan.disturbances))
        ]

    def _do(self, index: int, disturbance: Disturbance) -> None:
        generator = random.Random(f"{self.seed} {self.plan.number} {index}")
        self.results[index] = self.scene.do(disturbance, generator)


def disturbed_run(plan: Plan, root: Path, undisturbed: str, *, seed: int, with_network: bool) -> Outcome:
    """Do a run of a campaign.

    Parameters
    ----------
    plan : Plan
        What happens to it.
    root : Path
        An empty folder.
    undisturbed : str
        Hash of the weights that come out if nothing happens.
    seed : int
        Of the campaign.
    with_network : bool
        Whether the fleet's parts are in networks of their own.
    """
    results: dict[str, Any] = {}
    remains: list[str] = []
    with ExitStack() as stack:
        network = stack.enter_context(Network(MEMBERS)) if with_network else None
        spaces = network.namespaces if network is not None else set()
        if network is not None:
            stack.enter_context(network.on_server())
        folder = root / "runs" / NAME
        with _fleet(plan, root, network) as (fleet, disks):
            schedule = Schedule(plan, Scene(fleet, folder, network, disks), seed)
            results = _serve(plan, root, fleet, schedule)
            states = [fleet.parts.state(member) for member in range(MEMBERS)]
        # Once the fleet is down.
        remains += [f"process {each.pid}" for each in processes.marked(fleet.description.mark)]
        if not processes.port_is_free(fleet.description.port):
            remains.append(f"port {fleet.description.port} is taken")
        results |= _look(folder, states)
        for disk in disks.values():
            disk.unmount()
    if not is_gone(spaces):
        remains.append("a network namespace")
    remains += [str(each.relative_to(root)) for each in (*root.rglob("*.part"), *root.glob(f"{TEMPORARY}/*"))]
    return Outcome(undisturbed=undisturbed, remains=remains, **results)


@contextmanager
def _fleet(plan: Plan, root: Path, network: Network | None) -> Iterator[tuple[Fleet, dict[int, SmallDisk]]]:
    """Start a fleet, with small disks where they matter."""
    hosts = None if network is None else network.hosts
    with Fleet.up(root / "fleet", MEMBERS, hosts=hosts) as fleet:
        disks = {
            member: SmallDisk(fleet.parts.state(member))
            for member in {each.member for each in plan.disturbances if each.kind in DISK}
        }
        yield fleet, disks


def _serve(plan: Plan, root: Path, fleet: Fleet, schedule: Schedule) -> dict[str, Any]:
    """Do the run, and return how it ended."""
    config = RunConfig.from_mapping({**plan.options, "run-dir": str(root / "runs"), "run-name": NAME})
    begin = time.monotonic()
    results: dict[str, Any] = {"by_itself": True}
    messages: list[str] = []
    try:
        with time_limit(plan.limit), _temporary(root / TEMPORARY):
            folder = serve(config, fleet.control, schedule.on_event, say=messages.append)
        summary = folder.summary()
        results |= {"sha256": summary["weights_sha256"], "members": summary["members"]}
        results["notes"] = {"left out": summary["left_out"], "said": messages}
    except TimeUp:
        results["by_itself"] = False
    except WashError as error:
        results["error"] = str(error)
    results["seconds"] = time.monotonic() - begin
    results["happened"] = schedule.finish()
    return results


def _look(folder: Path, states: list[Path]) -> dict[str, Any]:
    """Audit a stopped run, and see who was there."""
    run = RunFolder(folder)
    absent: set[int] = set()
    for event in run.events():
        if event["event"] == "round":
            absent |= set(event["absent"])
    for line in json_lines(folder / EXCHANGES):
        if line is not None:
            absent |= set(range(MEMBERS)) - set(line["members"])
    results: dict[str, Any] = {"absent": sorted(absent)}
    try:
        results["problems"] = audit(run, states).problems
        with closing(SqliteStore.read(folder / JOURNAL)) as store:
            enrolments = Journal(store).enrolments()
        results["anew"] = [member for member, each in enrolments.items() if each.incarnation]
    except WashError as error:
        results["problems"] = [str(error)]
    return results


@contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    """Let this process have a folder of its own for temporary files."""
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
