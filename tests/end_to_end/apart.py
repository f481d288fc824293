"""A fleet whose machines are network namespaces: what each sends and receives is on an interface of its own.

On the loopback interface a SuperNode talks to its ClientApp, too, and nobody tells whose bytes are whose.
"""

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from wash_fl.deploy import certificates, node_keys, processes
from wash_fl.deploy.parts import SUPERLINK, Parts, node_role

PORT = 8443
ROOT = Path(__file__).resolve().parents[2]
PATIENT = Path(__file__).with_name("patient_heartbeats")
BIN = Path(sys.executable).parent


def why_not() -> str:
    """Return why there can be no namespaces here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces are root's, on Linux"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2's command ip"
    name = f"w{uuid.uuid4().hex[:6]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    tried = subprocess.run(
        ["ip", "-n", name, "link", "add", "wire0", "type", "veth", "peer", "name", "wire1"],
        capture_output=True,
        text=True,
        check=False,
    )
    ip("netns", "del", name)
    return f"no pair of interfaces can be made here: {tried.stderr.strip()}" if tried.returncode else ""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Apart:
    """A SuperLink and SuperNodes, each in a namespace, with TLS and node authentication.

    Attributes
    ----------
    folder : Path
        Where they keep their files.
    members : int
        How many nodes there are.
    """

    folder: Path
    members: int
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def server(self) -> str:
        return f"w{self.mark[:6]}s"

    def device(self, member: int) -> str:
        return f"w{self.mark[:6]}m{member}"

    @property
    def parts(self) -> Parts:
        path = os.pathsep.join([str(PATIENT), str(ROOT)])
        return Parts(self.folder, self.mark, {"PYTHONPATH": path})

    @contextmanager
    def up(self) -> Iterator["Apart"]:
        """Make the namespaces and start the fleet; whatever was made and started is gone afterwards."""
        try:
            self._make_namespaces()
            self._connect()
            self._start()
            yield self
        finally:
            processes.stop_marked(self.mark)
            for name in (self.server, *map(self.device, range(self.members))):
                with suppress(subprocess.CalledProcessError):
                    ip("netns", "del", name)

    def received(self, member: int) -> int:
        """Return the bytes that a device's interface has received so far."""
        return self._counter(member, "rx_bytes")

    def sent(self, member: int) -> int:
        """Return the bytes that a device's interface has sent so far."""
        return self._counter(member, "tx_bytes")

    def serve(self, folder: Path, **options: object) -> "subprocess.Popen[str]":
        """Start `wash-fl serve` on the server's side."""
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = ["wash-fl", "serve", "--connection", "fleet", *words]
        return subprocess.Popen(
            ["ip", "netns", "exec", self.server, str(BIN / command[0]), *command[1:]],
            cwd=folder,
            env=self.parts.environment("control", self.parts.server),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _make_namespaces(self) -> None:
        for name in (self.server, *map(self.device, range(self.members))):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")

    def _connect(self) -> None:
        for member in range(self.members):
            here, device = f"d{member}", self.device(member)
            ip(
                "-n",
                self.server,
                "link",
                "add",
                here,
                "type",
                "veth",
                "peer",
                "name",
                "wire",
                "netns",
                device,
            )
            for name, link, last in ((self.server, here, 1), (device, "wire", 2)):
                ip("-n", name, "addr", "add", f"10.77.{member}.{last}/24", "dev", link)
                # What leaves is cut into what a real link carries, each with its headers.
                ip("-n", name, "link", "set", "dev", link, "gso_max_segs", "1", "up")

    def _start(self) -> None:
        parts = self.parts
        certificates.make_authority(parts.credentials)
        certificates.make_server_certificate(
            parts.credentials, [f"10.77.{member}.1" for member in range(self.members)]
        )
        parts.server.mkdir(parents=True)
        authority = parts.credentials / certificates.AUTHORITY
        (parts.server / "config.toml").write_text(
            f'[superlink.fleet]\naddress = "127.0.0.1:{PORT}"\nroot-certificates = "{authority}"\n'
        )
        self._run(
            self.server,
            [
                "flower-superlink",
                *("--ssl-ca-certfile", str(authority)),
                *("--ssl-certfile", str(parts.credentials / certificates.CERTIFICATE)),
                *("--ssl-keyfile", str(parts.credentials / certificates.KEY)),
                "--enable-supernode-auth",
                *("--host", "0.0.0.0", "--port", str(PORT), "--disable-runtime-dependency-installation"),
            ],
            parts.environment(SUPERLINK, parts.server),
            parts.log(),
        )
        self._wait_for(parts.log(), "Uvicorn running", "Application startup complete")
        for member in range(self.members):
            node_keys.make_node_key(parts.credentials, parts.key(member).name)
            key = str(parts.key(member).with_suffix(".pub"))
            subprocess.run(
                [
                    "ip",
                    "netns",
                    "exec",
                    self.server,
                    str(BIN / "flwr"),
                    "supernode",
                    "register",
                    key,
                    "fleet",
                ],
                env=parts.environment("control", parts.server),
                check=True,
                capture_output=True,
            )
        for member in range(self.members):
            parts.state(member).mkdir(parents=True)
            environment = parts.environment(node_role(member), parts.node(member))
            environment["WASH_FL_STATE"] = str(parts.state(member))
            command = [
                "flower-supernode",
                *("--root-certificates", str(authority), "--superlink", f"10.77.{member}.1:{PORT}"),
                *("--auth-supernode-private-key", str(parts.key(member))),
                *("--node-config", f"partition-id={member}", "--port", "9094"),
            ]
            self._run(self.device(member), command, environment, parts.log(member))
        for member in range(self.members):
            self._wait_for(parts.log(member), "SuperNode ID:")

    def _run(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        with log.open("ab") as file:
            subprocess.Popen(
                ["ip", "netns", "exec", name, str(BIN / command[0]), *command[1:]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for(self, log: Path, *words: str) -> None:
        deadline = time.monotonic() + 300
        while not any(each in log.read_text(errors="replace") for each in words):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{log} does not say {words}: {processes.last_words(log)}")
            time.sleep(0.5)

    def _counter(self, member: int, name: str) -> int:
        command = ["cat", f"/sys/class/net/wire/statistics/{name}"]
        output = subprocess.check_output(["ip", "netns", "exec", self.device(member), *command])
        return int(output)
