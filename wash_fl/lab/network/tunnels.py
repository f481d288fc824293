"""Wires of TUN devices, carried by this process: for kernels whose ``tc`` knows no ``netem``."""

import fcntl
import heapq
import os
import random
import struct
import time
from contextlib import suppress
from typing import Final

from wash_fl.errors import RunError
from wash_fl.lab.network.link import Count, Lane, Link
from wash_fl.lab.network.namespaces import entered
from wash_fl.lab.network.wires import UP, Ends, down, set_address

DEVICE: Final = "/dev/net/tun"

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_LARGEST: Final = 65536
_AT_ONCE: Final = 64
"""Packets that are taken from one interface before it is looked at the others."""


class Tunnels:
    """Takes each packet out of one end, and puts it into the other when its lane says so.

    Parameters
    ----------
    ends : Ends
        What is joined.
    """

    def __init__(self, ends: Ends) -> None:
        self._lanes: list[tuple[Lane, Lane]] = []
        self._ways: dict[int, tuple[Lane, int]] = {}
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        for device, namespace in enumerate(ends.devices):
            own, other = _tun(namespace, UP), _tun(ends.server, down(device))
            # The same packets are lost each time, as far as the same packets are sent.
            lanes = Lane(random.Random(2 * device)), Lane(random.Random(2 * device + 1))
            self._ways |= {own: (lanes[0], other), other: (lanes[1], own)}
            self._lanes.append(lanes)
            set_address(ends, device, 0)

    def files(self) -> list[int]:
        """Return the descriptors of the interfaces."""
        return list(self._ways)

    def take(self, file: int) -> None:
        """Take the packets that wait at an interface."""
        lane, target = self._ways[file]
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(file, _LARGEST)
            except BlockingIOError:
                return
            except OSError:  # the interface is down for a moment: its address changes
                return
            arrival = lane.arrival(len(packet), time.monotonic())
            if arrival is not None:
                self._number += 1
                heapq.heappush(self._under_way, (arrival, self._number, target, packet))

    def proceed(self) -> float | None:
        """Let the packets arrive whose time has come."""
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, _, target, packet = heapq.heappop(self._under_way)
            with suppress(OSError):  # as a network card does with what nobody takes
                os.write(target, packet)
        return self._under_way[0][0] - now if self._under_way else None

    def change(self, device: int, link: Link) -> None:
        """Change how a device's link is, for what goes in from now on."""
        for lane in self._lanes[device]:
            lane.link = link

    def counts(self) -> list[tuple[Count, Count]]:
        """Return what each device has sent up, and what was sent down to it."""
        return [(up.count, down.count) for up, down in self._lanes]


def _tun(namespace: int, name: str) -> int:
    """Return the descriptor of a new TUN device, which is gone when that is closed."""
    try:
        with entered(namespace):
            file = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
            except BaseException:
                os.close(file)
                raise
    except OSError as error:
        raise RunError(
            f"cannot make a link: `tc` has no netem in this kernel, and {DEVICE} makes no TUN device "
            f"({error.strerror}). Load one of the modules sch_netem and tun."
        ) from error
    return file
