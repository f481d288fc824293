"""Wires of virtual Ethernet whose two ends the kernel itself slows down, by ``tc`` with ``netem``."""

import json
import math
import os
from contextlib import suppress
from typing import Final

from wash_fl.errors import RunError
from wash_fl.lab.network.link import Count, Link
from wash_fl.lab.network.namespaces import entered
from wash_fl.lab.network.wires import MTU, UP, Ends, down, run, set_address

UNLIMITED: Final = 10_000
"""Packets that a link without a rate holds, all of them on their way."""


class Emulation:
    """Leaves the packets to the kernel.

    Parameters
    ----------
    ends : Ends
        What is joined.
    """

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        for device, namespace in enumerate(ends.devices):
            with entered(ends.server):
                other = f"/proc/{os.getpid()}/fd/{namespace}"
                run("ip", "link", "add", down(device), "type", "veth", "peer", "name", UP, "netns", other)
            set_address(ends, device, 0)
            self.change(device, Link())

    def files(self) -> list[int]:
        """Return nothing: no packet comes by here."""
        return []

    def take(self, file: int) -> None:
        """Take nothing."""

    def proceed(self) -> float | None:
        """Do nothing."""
        return None

    def change(self, device: int, link: Link) -> None:
        """Change how a device's link is."""
        for namespace, interface in self._interfaces(device):
            with entered(namespace):
                run(*discipline(interface, link))

    def counts(self) -> list[tuple[Count, Count]]:
        """Return what each device has sent up, and what was sent down to it."""
        return [
            (self._count(*self._interfaces(device)[0]), self._count(*self._interfaces(device)[1]))
            for device in range(len(self._ends.devices))
        ]

    def _interfaces(self, device: int) -> tuple[tuple[int, str], tuple[int, str]]:
        return (self._ends.devices[device], UP), (self._ends.server, down(device))

    def _count(self, namespace: int, interface: str) -> Count:
        with entered(namespace):
            statistics = json.loads(run("tc", "-statistics", "-json", "qdisc", "show", "dev", interface))
        netem = next(each for each in statistics if each["kind"] == "netem")
        return Count(netem["bytes"], netem["packets"], netem["drops"])


def discipline(interface: str, link: Link) -> list[str]:
    """Return the command that makes the way out of an interface what a link is."""
    words = ["tc", "qdisc", "replace", "dev", interface, "root", "netem"]
    packets = UNLIMITED
    if link.kbit:
        # It holds those that wait and those that are on their way.
        bits = (link.queue_ms + link.delay_ms) * link.kbit
        packets = max(2, math.ceil(bits / (8 * MTU)))
        words += ["rate", f"{link.kbit:g}kbit"]
    words += ["limit", str(packets)]
    if link.delay_ms:
        words += ["delay", f"{link.delay_ms:g}ms"]
    loss = 1.0 if link.is_cut else link.loss
    if loss:
        words += ["loss", f"{100 * loss:g}%"]
    return words


def is_known(namespace: int) -> bool:
    """Return whether this kernel's ``tc`` has netem, and virtual Ethernet: both are tried."""
    with entered(namespace), suppress(RunError):
        run("ip", "link", "add", "probe", "type", "veth", "peer", "name", "probe-peer")
        try:
            run(*discipline("probe", Link(kbit=1000.0, delay_ms=1.0, loss=0.01)))
            return True
        finally:
            run("ip", "link", "delete", "probe")
    return False
