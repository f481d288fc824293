"""A whole fleet on this machine: SuperLink and SuperNodes as processes, with TLS and node authentication."""

import json
import signal
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from wash_fl.deploy import certificates, node_keys, processes
from wash_fl.deploy.control import Control
from wash_fl.deploy.description import FILE, LARGEST, Description
from wash_fl.deploy.hosts import LOOPBACK, Hosts
from wash_fl.deploy.parts import SUPERLINK, Parts, Say, node_role, pids, send
from wash_fl.errors import RunError
from wash_fl.files import private_folder
from wash_fl.system.locks import locked

CONNECTION = "fleet"
"""The name of the fleet's SuperLink in Flower's configuration."""

DEFAULT_MEMBERS = 3
LOCK = ".lock"


class Fleet:
    """A fleet on this machine, in a folder of its own.

    Attributes
    ----------
    folder : Path
        Where it lives.
    description : Description
        What it is.
    parts : Parts
        Where its parts keep their files.

    Examples
    --------
    >>> with Fleet.up(Path("fleet"), members=3) as fleet:  # doctest: +SKIP
    ...     fleet.kill("superlink")
    ...     fleet.restart_superlink()
    """

    def __init__(
        self,
        folder: Path,
        description: Description,
        env: Mapping[str, str] | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self.folder = folder
        self.description = description
        self.parts = Parts(folder, description.mark, dict(env or {}), hosts or Hosts())

    @classmethod
    def open(cls, folder: Path, env: Mapping[str, str] | None = None) -> "Fleet":
        """Return the fleet of a folder, whether it runs or not.

        Raises
        ------
        RunError
            If the folder is not one of a fleet.
        """
        folder = folder.expanduser().resolve()
        return cls(folder, Description.load(folder), env)

    @classmethod
    def up(
        cls,
        folder: Path,
        members: int | None = None,
        *,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        hosts: Hosts | None = None,
        say: Say = lambda line: None,
    ) -> "Fleet":
        """Start a new fleet, or one that was stopped: with the same keys, database and states.

        Parameters
        ----------
        folder : Path
            Where it lives; made if it does not exist.
        members : int, optional
            SuperNodes; 3 for a new fleet.
        port : int, optional
            Of the loopback interface, for the SuperLink; a free one by default.
        env : mapping of str to str, optional
            More environment variables for all its processes.
        hosts : Hosts, optional
            Where its parts are; on the loopback interface by default.
        say : callable
            Told what happens, a line at a time.

        Raises
        ------
        RunError
            If it runs already, the folder is something else, the port is taken, or a process does not start.
            Whatever was started is stopped again.
        """
        _check_environment()
        folder = folder.expanduser().resolve()
        if folder.exists() and not (folder / FILE).exists() and not _is_empty(folder):
            raise RunError(f"{folder} exists and is not the folder of a fleet: choose another.")
        _check_size(members, port)
        with _lock(folder):
            description = Description.load(folder) if (folder / FILE).exists() else None
            fleet = cls(
                folder,
                description or Description(uuid.uuid4().hex, members or DEFAULT_MEMBERS, 0),
                env,
                hosts,
            )
            if fleet.pids():
                raise RunError(
                    f"the fleet in {folder} runs already: stop it first (wash-fl fleet down --dir {folder})."
                )
            size = fleet.description.members
            if members not in (None, size):
                raise RunError(
                    f"the fleet in {folder} has {size} members, not {members}: leave the number out, or "
                    "choose another folder."
                )
            fleet._prepare(port)
            try:
                fleet._start(say)
            except BaseException:
                fleet._stop()
                raise
        return fleet

    def down(self) -> int:
        """Stop everything that came of this fleet, and nothing else; return how many processes that were."""
        with _lock(self.folder):
            return self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def address(self) -> str:
        """Host and port of the SuperLink."""
        return f"{LOOPBACK}:{self.description.port}"

    @property
    def control(self) -> Control:
        """Flower's command line, for this fleet."""
        return Control(CONNECTION, self.parts.environment("control", self.parts.server))

    @property
    def certificate(self) -> certificates.Certificate:
        """The SuperLink's certificate."""
        return certificates.read_certificate(self.parts.credentials / certificates.CERTIFICATE)

    def pids(self) -> dict[str, list[int]]:
        """Return the processes that run, by role.

        Roles are ``superlink``, ``serverapp`` and ``superexec`` (Flower's launcher) on the server's side, and
        ``supernode 0``, ``clientapp 0``, ``superexec 0`` and so on for the nodes. ``supervisor`` looks after
        the launcher, ``keeper 0`` after a ClientApp's task. What these have started under other names is
        ``other``; the same with a node's number.
        """
        return pids(self.description.mark)

    def kill(self, role: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to the processes of a role; after SIGKILL, return when they are gone.

        Raises
        ------
        RunError
            If there is none.
        """
        pids = self.pids()
        if role not in pids:
            raise RunError(f"no process is {role!r}: there are {', '.join(pids) or 'none'}.")
        for pid in pids[role]:
            send(pid, number)

    def restart_superlink(self) -> None:
        """Stop what is left of the SuperLink and of the ServerApp it had started, and start it again.

        Raises
        ------
        RunError
            If it does not start; the nodes are left as they are.
        """
        processes.stop_marked(self.description.mark, {SUPERLINK})
        self.parts.start_superlink(self.description.port, self.description.streams)

    def start_node(self, member: int, say: Say = lambda line: None) -> None:
        """Stop what is left of a node, start it, and wait until it is connected.

        After a ``kill -9`` the SuperLink does not let a node in again before it has missed it for a minute.

        Raises
        ------
        RunError
            If there is no such node, or it does not connect.
        """
        self.stop_node(member)
        self.parts.start_node(member, self.description.port).wait(say)

    def stop_node(self, member: int) -> int:
        """Stop a node and what it has started; return how many processes that were.

        Raises
        ------
        RunError
            If there is no such node.
        """
        last = self.description.members - 1
        if not 0 <= member <= last:
            raise RunError(f"the fleet in {self.folder} has no node {member}: it has 0 to {last}.")
        return processes.stop_marked(self.description.mark, {node_role(member)})

    def _prepare(self, port: int | None) -> None:
        """Make the credentials that are missing, and Flower's configuration."""
        own_port = port or self.description.port or processes.free_port()
        if not processes.port_is_free(own_port):
            raise RunError(f"port {own_port} of 127.0.0.1 is taken: choose another with --port.")
        parts = self.parts
        nodes = self.description.nodes if parts.database.exists() else ()
        streams = self.description.streams or processes.free_port()
        self.description = replace(self.description, port=own_port, nodes=nodes, streams=streams)
        # Before anything is made or started, so that it can be found again whatever happens.
        self.description.save(self.folder)
        certificates.make_authority(parts.credentials)
        if not (parts.credentials / certificates.CERTIFICATE).exists():
            certificates.make_server_certificate(
                parts.credentials, {parts.hosts.address} - set(certificates.ALWAYS)
            )
        if self.certificate.days_left <= 0:
            raise RunError(
                f"{self.certificate.path} expired on {self.certificate.until:%Y-%m-%d}: delete it and "
                f"{certificates.KEY} beside it, and new ones are made."
            )
        for member in range(self.description.members):
            if not parts.key(member).exists():
                node_keys.make_node_key(parts.credentials, parts.key(member).name)
            private_folder(parts.node(member))
            private_folder(parts.state(member))
        private_folder(parts.server)
        (parts.server / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "{self.address}"\n'
            f"root-certificates = {_toml(parts.credentials / certificates.AUTHORITY)}\n"
        )

    def _start(self, say: Say) -> None:
        parts, port, members = self.parts, self.description.port, self.description.members
        say(f"starting the SuperLink on {self.address}")
        parts.start_superlink(port, self.description.streams)
        for member in range(len(self.description.nodes), members):
            node = self.control.register(parts.key(member).with_suffix(".pub"))
            self.description = replace(self.description, nodes=(*self.description.nodes, node or ""))
            self.description.save(self.folder)
        say(f"starting {members} SuperNodes")
        for node_started in [parts.start_node(member, port) for member in range(members)]:
            node_started.wait(say)

    def _stop(self) -> int:
        mark = self.description.mark
        # Nodes first, while the SuperLink can still take note that they leave: else it would not let them in
        # again for a minute.
        nodes = {node_role(member) for member in range(self.description.members)}
        return processes.stop_marked(mark, nodes) + processes.stop_marked(mark)


def _check_environment() -> None:
    """Refuse a Flower that would find no tables for its database.

    It parts the list of the folders that describe them at spaces and commas (1.42.0).
    """
    flower = find_spec("flwr")
    where = "" if flower is None else str(flower.origin)
    if " " in where or "," in where:
        raise RunError(
            f"Flower's SuperLink does not work below a path with a space or a comma, and is installed in "
            f"{Path(where).parent}: make the environment in another folder."
        )


def _check_size(members: int | None, port: int | None) -> None:
    if members is not None and not 2 <= members <= LARGEST:
        raise RunError(f"members = {members} is not allowed: it must be from 2 to {LARGEST}.")
    if port is not None and not 1024 <= port <= 65535:
        raise RunError(f"port = {port} is not allowed: it must be from 1024 to 65535.")


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and all(each.name == LOCK for each in folder.iterdir())


def _toml(path: Path) -> str:
    """Return a path as a TOML string; JSON's are the same, but for how they escape."""
    return json.dumps(str(path), ensure_ascii=False)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one command at a time start and stop a fleet."""
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"another command is starting or stopping the fleet in {folder}: wait for it."
    with locked(folder / LOCK, busy=busy, place="folder"):
        yield
