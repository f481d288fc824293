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
from urllib.parse import unquote

from wash_fl.core.packet import value_bytes
from wash_fl.protocol.messages import ServerReply

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
    # By open connection: bytes of messages, up and down; and what the kernel says that it carried besides.
    _messages: dict[str, list[int]] = field(default_factory=dict)
    _framing: dict[str, tuple[int, int]] = field(default_factory=dict)
    # The same of all that are closed; None as long as there is none that the kernel told of.
    _closed: tuple[int, int] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, port: int) -> None:
        """Count the connections to this port."""
        self._port = port

    def carried(self, connection: str, *, up: int = 0, down: int = 0) -> None:
        """Count the bytes of a message on a connection, as :func:`connection_of` names it."""
        with self._lock:
            counts = self._messages.setdefault(connection, [0, 0])
            counts[0] += up
            counts[1] += down

    def up(self, member: int, packet: bytes, messages: int) -> None:
        """Count an offer, and how many bytes the messages were that brought it."""
        payload = value_bytes(packet)
        self.sides["up"].setdefault(member, Side()).add(payload, messages)
        row = self._row.setdefault(member, [0, 0, 0, 0])
        row[0] += payload
        row[1] += messages - payload

    def down(self, member: int, reply: ServerReply, messages: int) -> None:
        """Count a reply, and how many bytes its messages were."""
        payload = value_bytes(reply.packet) if reply.packet else 0
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
        if not self._port:
            return
        with self._lock:
            found = _connections(self._port)
            for address, (sent, received) in found.items():
                up, down = self._messages.get(address, (0, 0))
                self._framing[address] = max(0, received - up), max(0, sent - down)
            for address in (self._messages.keys() | self._framing.keys()) - found.keys():
                # Closed: nothing is kept of a single one, for anybody may connect again and again.
                self._messages.pop(address, None)
                up, down = self._closed or (0, 0)
                if framing := self._framing.pop(address, None):
                    self._closed = up + framing[0], down + framing[1]

    def total(self) -> dict[str, int]:
        """Return the sums over all members; framing is left out where the kernel does not tell."""
        self.sample()
        sums = {
            f"{way}_{kind}": sum(getattr(side, kind) for side in list(members.values()))
            for way, members in self.sides.items()
            for kind in ("payload", "protocol")
        }
        with self._lock:
            framing = [*self._framing.values(), *([self._closed] if self._closed else [])]
        for place, way in enumerate(("up", "down")):
            if framing:
                sums[f"{way}_framing"] = sum(each[place] for each in framing)
        return sums


def host_and_port(peer: str) -> tuple[str, str]:
    """Return where a peer is that gRPC calls ``ipv4:127.0.0.1:4711``, say; empty host if it says none."""
    host, _, port = unquote(peer.partition(":")[2]).rpartition(":")
    return host.strip("[]"), port


def connection_of(peer: str) -> str:
    """Return the name of the connection to a peer, in gRPC's words."""
    return " ".join(host_and_port(peer))


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
                    peer = _peer(connection, port)
                    if peer:
                        info = connection.getsockopt(socket.IPPROTO_TCP, option, _ACKED + 16)
                        sent, received = struct.unpack_from("=QQ", info, _ACKED)
                        found[peer] = (sent, received)
    return found


def _peer(connection: socket.socket, port: int) -> str:
    """Return the other side of a connection to this port; empty if it is another's."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    name: Any = connection.getsockname()
    peer: Any = connection.getpeername()  # raises for the one that listens
    return f"{peer[0].removeprefix('::ffff:')} {peer[1]}" if int(name[1]) == port else ""
