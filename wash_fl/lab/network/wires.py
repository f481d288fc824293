"""What the two kinds of wires have in common: devices' ends, addresses, and the commands that set them up."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from wash_fl.errors import RunError
from wash_fl.lab.network.link import Count, Link
from wash_fl.lab.network.namespaces import entered

SERVER: Final = "10.77.255.1"
"""The server's address, the same for all devices."""

MOST: Final = 200
"""Devices: each has a net of its own, the third number of its addresses."""

UP: Final = "up0"
"""A device's interface."""

MTU: Final = 1500


@dataclass(frozen=True)
class Ends:
    """The namespaces that wires join, by their descriptors.

    Attributes
    ----------
    server : int
        The server's.
    devices : sequence of int
        The devices', in order.
    """

    server: int
    devices: Sequence[int]


class Wires(Protocol):
    """Joins each device to the server."""

    def files(self) -> list[int]:
        """Return the descriptors to wait at."""

    def take(self, file: int) -> None:
        """Take what has come at a descriptor."""

    def proceed(self) -> float | None:
        """Do what is due; return in how many seconds there is more to do, None if nothing is."""

    def change(self, device: int, link: Link) -> None:
        """Change how a device's link is."""

    def counts(self) -> list[tuple[Count, Count]]:
        """Return what each device has sent up, and what was sent down to it."""


def down(device: int) -> str:
    """Return the name of the server's interface to a device."""
    return f"down{device}"


def address_of(device: int, number: int = 0) -> str:
    """Return the n-th address of a device, from 0."""
    return f"10.77.{device}.{2 + number % 250}"


def set_address(ends: Ends, device: int, number: int) -> None:
    """Give a device its n-th address, and let the server know where that is; another one is taken away."""
    own = address_of(device, number)
    for namespace, interface, here, there in (
        (ends.devices[device], UP, own, SERVER),
        (ends.server, down(device), SERVER, own),
    ):
        with entered(namespace):
            run("ip", "address", "flush", "dev", interface)
            run("ip", "address", "add", here, "peer", there, "dev", interface)
            run("ip", "link", "set", interface, "up", "mtu", str(MTU))


def bring_up_loopback(ends: Ends) -> None:
    """Let processes of one machine talk to each other."""
    for namespace in (ends.server, *ends.devices):
        with entered(namespace):
            run("ip", "link", "set", "lo", "up")


def run(*command: str) -> str:
    """Run a command and return what it printed.

    Raises
    ------
    RunError
        If it is not installed, or fails.
    """
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise RunError(f"the command {command[0]} is not there: install iproute2.") from error
    if process.returncode:
        reason = " ".join(process.stderr.split()).rstrip(".")
        raise RunError(f"`{' '.join(command)}` fails: {reason}.")
    return process.stdout


def as_json(counts: list[tuple[Count, Count]]) -> list[list[dict[str, Any]]]:
    """Return counts as they are sent from process to process."""
    return [[vars(each) for each in pair] for pair in counts]
