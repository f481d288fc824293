"""Makes things happen to a fleet of real processes."""

import random
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from wash_fl.deploy import parts
from wash_fl.deploy.launch import Fleet
from wash_fl.errors import RunError, WashError
from wash_fl.lab.campaign.disks import SmallDisk, flip_a_bit
from wash_fl.lab.campaign.plan import SERVER_FILES, Disturbance, Kind
from wash_fl.lab.network.link import Link
from wash_fl.lab.network.network import Network

APPEAR_SECONDS: Final = 40.0
"""How long a process, or a file, that comes and goes is waited for."""

RESTART_SECONDS: Final = 3.0
"""After which systemd starts a part again."""


class Scene:
    """A fleet on which things happen while it does a run.

    Parameters
    ----------
    fleet : Fleet
        The fleet.
    run : Path
        The run's folder on the server.
    network : Network, optional
        What joins its parts.
    disks : mapping of int to SmallDisk
        On which members keep their states.
    """

    def __init__(
        self, fleet: Fleet, run: Path, network: Network | None, disks: Mapping[int, SmallDisk]
    ) -> None:
        self._fleet = fleet
        self._run = run
        self._network = network
        self._disks = disks

    def do(self, disturbance: Disturbance, generator: random.Random) -> str:
        """Let something happen, to its end; return why it did not, empty if it did."""
        time.sleep(disturbance.wait)
        acts = {
            Kind.KILL: self._kill,
            Kind.PAUSE: self._pause,
            Kind.PARTITION: self._cut,
            Kind.MOVE: self._move,
            Kind.RETURN: self._return,
            Kind.FULL: self._fill,
            Kind.READ_ONLY: self._protect,
        }
        try:
            if disturbance.kind is Kind.FLIP:
                self._flip(disturbance, generator)
            else:
                acts[disturbance.kind](disturbance)
        except WashError as error:
            return str(error)
        return ""

    def _kill(self, what: Disturbance) -> None:
        self._fleet.kill(self._role(what))
        time.sleep(RESTART_SECONDS)
        if what.target == "superlink":
            self._fleet.restart_superlink()
        elif what.target == "supernode":
            self._fleet.start_node(what.member)

    def _pause(self, what: Disturbance) -> None:
        role = self._role(what)
        pids = self._fleet.pids().get(role, [])
        for pid in pids:
            parts.send(pid, signal.SIGSTOP)
        try:
            time.sleep(what.seconds)
        finally:
            for pid in pids:
                parts.send(pid, signal.SIGCONT)

    def _cut(self, what: Disturbance) -> None:
        network = self._joined()
        network.change(Link(is_cut=True), what.member)
        try:
            time.sleep(what.seconds)
        finally:
            network.change(Link(), what.member)

    def _move(self, what: Disturbance) -> None:
        self._joined().move(what.member)

    def _return(self, what: Disturbance) -> None:
        self._fleet.stop_node(what.member)
        self._joined().move(what.member)
        self._fleet.start_node(what.member)

    def _fill(self, what: Disturbance) -> None:
        disk = self._disks[what.member]
        disk.fill()
        try:
            time.sleep(what.seconds)
        finally:
            disk.empty()

    def _protect(self, what: Disturbance) -> None:
        disk = self._disks[what.member]
        disk.protect()
        try:
            time.sleep(what.seconds)
        finally:
            disk.release()

    def _flip(self, what: Disturbance, generator: random.Random) -> None:
        """Flip a bit, and kill who has the file in memory, so that it is read."""
        on_server = what.target in SERVER_FILES
        root = self._run if on_server else self._fleet.parts.state(what.member)
        path = self._file(root, what.target, generator)
        with suppress(RunError):  # nobody reads it now
            self._fleet.kill("serverapp" if on_server else f"clientapp {what.member}")
        flip_a_bit(path, generator)

    def _file(self, root: Path, pattern: str, generator: random.Random) -> Path:
        deadline = time.monotonic() + APPEAR_SECONDS
        while True:
            files = sorted(each for each in root.rglob(pattern) if each.is_file() and each.stat().st_size)
            if files:
                return generator.choice(files)
            if time.monotonic() > deadline:
                raise RunError(f"there is no {pattern}")
            time.sleep(0.1)

    def _role(self, what: Disturbance) -> str:
        """Return the role of the processes that are meant, once there is one."""
        role = what.target if what.member < 0 else f"{what.target} {what.member}"
        deadline = time.monotonic() + APPEAR_SECONDS
        while role not in self._fleet.pids():
            if time.monotonic() > deadline:
                raise RunError(f"there is no {role}")
            time.sleep(0.2)
        return role

    def _joined(self) -> Network:
        if self._network is None:
            raise RunError("there is no network")
        return self._network
