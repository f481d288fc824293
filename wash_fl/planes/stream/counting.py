"""Bytes of the stream plane, each counted where it was really sent or received, never computed.

Of every message the part that is values is the *payload*; the rest of the message is *protocol* (headers of
packets, statuses, acknowledgements). What the connections carried beyond the messages is *framing*: HTTP/2,
TLS and its handshakes. The kernel counts that per connection (``TCP_INFO``), so it is known on Linux only.
"""

import os
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wash_fl.core.packet import value_bytes
from wash_fl.planes.stream.wire import Answer

_ACKED: Final = 120
"""Where ``tcpi_bytes_acked`` is in Linux's ``struct tcp_info``; ``tcpi_bytes_received`` follows it."""


@dataclass
class Side:
    """One member's bytes in one direction."""

    payload: int = 0
    protocol: int = 0

    def add(self, payload: int, messages: int) -> None:
        """Count messages of so many bytes, of which so many are values."""
        self.payload += payload
        self.protocol += messages - payload


@dataclass
class Counted:
    """Bytes of all streams that a server had, by member; ``up`` is from the device to the server."""

    sides: dict[str, dict[int, Side]] = field(default_factory=lambda: {"up": {}, "down": {}})
    _row: dict[int, list[int]] = field(default_factory=dict)
    _port: int = 0
    _connections: dict[str, tuple[int, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, port: int) -> None:
        """Count the connections to this port."""
        self._port = port

    def up(self, member: int, packet: bytes, messages: int) -> None:
        """Count an offer, and how many bytes the messages were that brought it."""
        payload = value_bytes(packet)
        self.sides["up"].setdefault(member, Side()).add(payload, messages)
        row = self._row.setdefault(member, [0, 0, 0, 0])
        row[0] += payload
        row[1] += messages - payload

    def down(self, member: int, answer: Answer, messages: int) -> None:
        """Count an answer, and how many bytes its messages were."""
        payload = value_bytes(answer.packet) if answer.packet else 0
        self.sides["down"].setdefault(member, Side()).add(payload, messages)
        row = self._row.setdefault(member, [0, 0, 0, 0])
        row[2] += payload
        row[3] += messages - payload

    def row(self) -> dict[str, list[int]]:
        """Return what each member's bytes were since the last time: payload and protocol up, then down."""
        row, self._row = self._row, {}
        return {str(member): row[member] for member in sorted(row)}

    def sample(self) -> None:
        """Ask the kernel what the open connections have carried so far."""
        if self._port:
            found = _connections(self._port)
            with self._lock:
                self._connections.update(found)

    def total(self) -> dict[str, int]:
        """Return the sums over all members; framing is left out where the kernel does not tell."""
        self.sample()
        sums = {
            f"{way}_{kind}": sum(getattr(side, kind) for side in list(members.values()))
            for way, members in self.sides.items()
            for kind in ("payload", "protocol")
        }
        with self._lock:
            carried = list(self._connections.values())
        for place, way in enumerate(("down", "up")):
            if carried:
                messages = sums[f"{way}_payload"] + sums[f"{way}_protocol"]
                sums[f"{way}_framing"] = max(0, sum(each[place] for each in carried) - messages)
        return sums


def _connections(port: int) -> dict[str, tuple[int, int]]:
    """Return the bytes sent and received by this process's connections to a port of its own."""
    option: int | None = getattr(socket, "TCP_INFO", None)
    found: dict[str, tuple[int, int]] = {}
    descriptors = Path("/proc/self/fd")
    if option is None or not descriptors.is_dir():
        return found
    for path in descriptors.iterdir():
        with suppress(OSError):
            link = str(path.readlink())
            if link.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(path.name))) as connection:
                    if _is_ours(connection, port):
                        info = connection.getsockopt(socket.IPPROTO_TCP, option, _ACKED + 16)
                        sent, received = struct.unpack_from("=QQ", info, _ACKED)
                        found[link] = (sent, received)
    return found


def _is_ours(connection: socket.socket, port: int) -> bool:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    name: Any = connection.getsockname()
    connection.getpeername()  # raises for the one that listens
    return int(name[1]) == port
