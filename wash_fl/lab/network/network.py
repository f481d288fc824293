"""A server and its devices, each in a network namespace of its own on this machine, and the links between."""

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from wash_fl.deploy.hosts import Hosts
from wash_fl.errors import RunError
from wash_fl.lab.network.link import Count, Link
from wash_fl.lab.network.namespaces import entered, identity
from wash_fl.lab.network.wires import MOST, SERVER
from wash_fl.system.interrupts import uninterrupted

HOLDER: Final = "wash_fl.lab.network.holder"
END_SECONDS: Final = 10.0

_NO_HOLDER: Final = "the network is not there any more: the process that held it has ended."


class Network:
    """A network that lasts as long as the context, or its process, whichever ends first.

    Parameters
    ----------
    devices : int
        How many.
    kind : str
        ``netem`` (the kernel's own) or ``tun`` (a process carries the packets); empty takes what is there.

    Attributes
    ----------
    kind : str
        Which of the two it is.
    links : list of Link
        How each device's link is now.

    Examples
    --------
    >>> with Network(2) as network, network.on_server():  # doctest: +SKIP
    ...     network.change(Link(kbit=256, delay_ms=30))
    ...     with Fleet.up(Path("fleet"), 2, hosts=network.hosts) as fleet:
    ...         ...
    """

    def __init__(self, devices: int, kind: str = "") -> None:
        if not 1 <= devices <= MOST:
            raise RunError(f"{devices} devices are not allowed in a network: take 1 to {MOST}.")
        missing = [name for name in ("ip", "nsenter") if shutil.which(name) is None]
        if missing or not sys.platform.startswith("linux"):
            raise RunError(
                "links are made of Linux's network namespaces, and here "
                + (f"{' and '.join(missing)} is missing" if missing else f"the system is {sys.platform}")
                + ": type this on Linux, with iproute2 and util-linux, as root."
            )
        self._lock = threading.Lock()
        command = [sys.executable, "-m", HOLDER, str(devices), kind]
        with uninterrupted():
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Ctrl-C is for this process, which ends that one when nobody is in its namespaces any more.
                start_new_session=True,
            )
        try:
            start = self._read()
        except BaseException:
            self.close()
            raise
        self.kind: str = start["kind"]
        self._server = self._file(start["server"])
        self._devices = [self._file(each) for each in start["devices"]]
        self._moves = [0] * devices
        self.links = [Link()] * devices

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def hosts(self) -> Hosts:
        """Where the parts of a fleet are in it."""
        ways = tuple(("nsenter", f"--net={each}") for each in self._devices)
        return Hosts(listen="0.0.0.0", address=SERVER, ways=ways)

    @contextmanager
    def on_server(self) -> Iterator[None]:
        """Let this thread be on the server, with whatever it starts meanwhile."""
        with entered(self._server):
            yield

    def on_device(self, device: int) -> str:
        """Return the file that stands for a device's namespace."""
        return self._devices[device]

    def change(self, link: Link, device: int | None = None) -> None:
        """Change how a link is: a device's, or all."""
        for each in range(len(self._devices)) if device is None else [device]:
            self._ask(do="change", device=each, link=dataclasses.asdict(link))
            self.links[each] = link

    def move(self, device: int) -> None:
        """Give a device another address; what it is connected to breaks."""
        self._moves[device] += 1
        self._ask(do="move", device=device, number=self._moves[device])

    def counts(self) -> list[tuple[Count, Count]]:
        """Return what each device has sent up, and what was sent down to it, since the network is there."""
        counts = self._ask(do="count")["counts"]
        return [(Count(**up), Count(**down)) for up, down in counts]

    @property
    def namespaces(self) -> set[tuple[int, int]]:
        """Return what its namespaces are known by, to see later that none is left."""
        return {identity(each) for each in (self._server, *self._devices)}

    def close(self) -> None:
        """End the process that holds it: nothing of it is left then, but what runs in it still."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _file(self, descriptor: int) -> str:
        return f"/proc/{self._process.pid}/fd/{descriptor}"

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(order).encode() + b"\n")
                self._process.stdin.flush()
            except (OSError, ValueError) as error:
                raise RunError(_NO_HOLDER) from error
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RunError(_NO_HOLDER)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RunError(answer["error"])
        return answer


def is_gone(identities: set[tuple[int, int]], seconds: float = END_SECONDS) -> bool:
    """Return whether no process is in any of these namespaces, or is in none soon.

    A process that is only counted dead by its parent is in none.
    """
    deadline = time.monotonic() + seconds
    while _inhabited(identities):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _inhabited(identities: set[tuple[int, int]]) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if identity(f"{process}/ns/net") in identities:
                return True
    return False
