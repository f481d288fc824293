"""The parts of a fleet on this machine: where each keeps its files, and how it is started."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wash_fl.deploy import certificates, processes
from wash_fl.deploy.hosts import LOOPBACK, Hosts
from wash_fl.errors import RunError
from wash_fl.stream import place

SUPERLINK = "superlink"
SUPERNODE = "supernode"
SUPERVISOR = "wash_fl.deploy.supervisor"
"""The program that starts a part and looks after its launcher."""

SUPERVISES = "supervisor"
"""Its role."""

SUPERVISED = (Path(sys.executable).name, "-P", "-m", SUPERVISOR)

LAUNCHER = "superexec"
"""What Flower calls its launcher: it starts ServerApps and ClientApps."""

CHUNK_BYTES = 1 << 17
"""The largest piece in which Flower sends an array. It has two on the way at a time, and each has to be
through in half a minute: these are at 70 kbit/s, and its own five megabytes would be at 2.8 Mbit/s."""

NODE_SECONDS = 150.0
"""How long a SuperNode may take to connect: one that was killed is let in again after a minute."""

_CONNECTED = re.compile(rb"SuperNode ID: \d+")
_HELD_FOR_CONNECTED = b"code: 2004"
_PORT_TAKEN = b"address already in use"

_PARTS = {
    "flower-superlink": SUPERLINK,
    "flower-supernode": SUPERNODE,
    "flower-superexec": LAUNCHER,
    "flwr-serverapp": "serverapp",
    "flwr-clientapp": "clientapp",
    SUPERVISOR: SUPERVISES,
    "one_clientapp.py": "keeper",
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Parts:
    """The SuperLink and the SuperNodes of a fleet in ``folder``.

    ======================  ==================================================================
    ``credentials/``        the authority, the server's certificate, a key for each node
    ``server/``             the SuperLink's database and log; Flower's configuration
    ``node-0/`` ...         each node's log, and the state of its member
    ======================  ==================================================================

    Attributes
    ----------
    folder : Path
        Where they keep their files.
    mark : str
        What their processes are found by.
    extra : mapping of str to str
        More environment variables for all of them.
    hosts : Hosts
        Where they are.
    """

    folder: Path
    mark: str
    extra: Mapping[str, str] = field(default_factory=dict)
    hosts: Hosts = field(default_factory=Hosts)

    @property
    def credentials(self) -> Path:
        """The folder of certificates and keys."""
        return self.folder / "credentials"

    @property
    def server(self) -> Path:
        """The SuperLink's folder, which is Flower's home as well."""
        return self.folder / "server"

    @property
    def database(self) -> Path:
        """What the SuperLink remembers: runs, messages, and the keys of its nodes."""
        return self.server / "state.db"

    def node(self, member: int) -> Path:
        """Return the folder of a node."""
        return self.folder / f"node-{member}"

    def state(self, member: int) -> Path:
        """Return the folder in which a node keeps its member."""
        return self.node(member) / "state"

    def key(self, member: int) -> Path:
        """Return the file of a node's private key; the public one has ``.pub`` at its end."""
        return self.credentials / f"node{member}"

    def log(self, member: int | None = None) -> Path:
        """Return the log of a node, or of the SuperLink."""
        return self.server / "superlink.log" if member is None else self.node(member) / "supernode.log"

    def environment(self, role: str, home: Path) -> dict[str, str]:
        """Return the environment of a part; each has a home of its own, as on a machine of its own."""
        scratch = home / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        own = {
            processes.ROLE: role,
            "TMPDIR": str(scratch),
            # A round is short here; by default Flower's launcher looks for work once a second.
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
            "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(CHUNK_BYTES),
        }
        return processes.flower_environment(home, self.mark) | own | dict(self.extra)

    def start_superlink(self, port: int, streams: int) -> None:
        """Start the SuperLink, and wait until it answers; its runs listen for streams on another port.

        Raises
        ------
        RunError
            If it does not; it is stopped again.
        """
        authority = self.credentials / certificates.AUTHORITY
        command = [
            *SUPERVISED,
            "flower-superlink",
            *("--ssl-ca-certfile", str(authority)),
            *("--ssl-certfile", str(self.credentials / certificates.CERTIFICATE)),
            *("--ssl-keyfile", str(self.credentials / certificates.KEY)),
            "--enable-supernode-auth",
            *("--database", str(self.database)),
            *("--host", self.hosts.listen, "--port", str(port)),
            "--disable-runtime-dependency-installation",
        ]
        environment = self.environment(SUPERLINK, self.server) | {
            place.LISTEN: f"{self.hosts.listen}:{streams}",
            place.ADDRESS: f"{self.hosts.address}:{streams}",
            place.CERTIFICATE: str(self.credentials / certificates.CERTIFICATE),
            place.KEY: str(self.credentials / certificates.KEY),
            place.AUTHORITY: str(authority),
        }
        process = processes.start(command, environment, self.log())
        url, name = f"https://{LOOPBACK}:{port}/health", "Flower's SuperLink"
        try:
            processes.wait_until_healthy(process, url, self.log(), name=name, authority=authority)
        except BaseException:
            processes.stop_marked(self.mark, {SUPERLINK})
            raise

    def start_node(self, member: int, port: int) -> "StartingNode":
        """Start a SuperNode of the SuperLink on ``port``, without waiting for it to connect."""
        node = StartingNode(self, member, port)
        node.start()
        return node


class StartingNode:
    """A SuperNode that has been started, until it is connected."""

    def __init__(self, parts: Parts, member: int, port: int) -> None:
        self._parts = parts
        self._member = member
        self._superlink = f"{parts.hosts.address}:{port}"
        self._log = parts.log(member)

    def start(self) -> None:
        """Start its process."""
        parts, member = self._parts, self._member
        command = [
            *SUPERVISED,
            "flower-supernode",
            *("--root-certificates", str(parts.credentials / certificates.AUTHORITY)),
            *("--superlink", self._superlink),
            *("--auth-supernode-private-key", str(parts.key(member))),
            *("--node-config", f"partition-id={member}"),
            *("--port", str(processes.free_port())),
        ]
        environment = parts.environment(node_role(member), parts.node(member))
        environment["WASH_FL_STATE"] = str(parts.state(member))
        # What earlier ones said is not about this one.
        self._before = self._log.stat().st_size if self._log.exists() else 0
        self._process: subprocess.Popen[bytes] = processes.start(
            command, environment, self._log, way=parts.hosts.way(member)
        )

    def wait(self, say: Say = lambda line: None) -> None:
        """Wait until it is connected, starting it again while the SuperLink holds it for connected.

        Raises
        ------
        RunError
            If it ends for another reason, or does not connect in time.
        """
        deadline = time.monotonic() + NODE_SECONDS
        has_warned = False
        while time.monotonic() < deadline:
            # Asked before the log is read, so that its last words are not missed.
            has_ended = self._process.poll() is not None
            output = self._output()
            if _CONNECTED.search(output) and not has_ended:
                return
            if has_ended and _HELD_FOR_CONNECTED not in output and _PORT_TAKEN not in output:
                break
            if has_ended:
                if not has_warned:
                    say(f"node {self._member} was killed; the SuperLink lets it in again within a minute")
                    has_warned = True
                time.sleep(2.0)
                self.start()
            time.sleep(0.1)
        words = processes.last_words(self._log, self._before)
        raise RunError(f"node {self._member} did not connect: {words} (log: {self._log}).")

    def _output(self) -> bytes:
        with self._log.open("rb") as file:
            file.seek(self._before)
            return file.read()


def node_role(member: int) -> str:
    """Return what marks a node's processes, beside the fleet's own mark."""
    return f"node {member}"


def pids(mark: str) -> dict[str, list[int]]:
    """Return the processes that carry a fleet's mark, by role, as ``Fleet.pids`` explains them."""
    import psutil

    by_role: dict[str, list[int]] = {}
    for process in processes.marked(mark):
        with suppress(psutil.Error):
            if processes.is_alive(process):
                by_role.setdefault(_role(process), []).append(process.pid)
    return {role: sorted(by_role[role]) for role in sorted(by_role)}


def send(pid: int, number: int) -> None:
    """Send a signal to a process; after SIGKILL, return when it is gone."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        process.send_signal(number)
        if number == signal.SIGKILL:
            # Also takes note of the end of a child of ours: to those who watch for it, it would else live on.
            process.wait(processes.STOP_SECONDS)


def _role(process: Any) -> str:
    """Return what a process is, from its command and its environment."""
    names = [Path(word).name for word in process.cmdline()[:4]]
    part = next((_PARTS[name] for name in names if name in _PARTS), "other")
    of = _owner(process)
    return f"{part} {of.removeprefix('node ')}" if of.startswith("node ") else part


def _owner(process: Any) -> str:
    """Return which part of the fleet a process came of."""
    import psutil

    try:
        return str(process.environ().get(processes.ROLE, ""))
    except psutil.AccessDenied:
        # Flower's launcher shows its environment to nobody but root; the part that started it does.
        parent = process.parent()
        return "" if parent is None else str(parent.environ().get(processes.ROLE, ""))
