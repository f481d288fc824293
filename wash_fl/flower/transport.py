"""What Flower's own transport adds to messages on a device's link: worked out, for Flower does not tell.

A SuperNode (Flower 1.42) speaks HTTP over TLS. It asks for a message every three seconds while it has none,
pulls each object of one with a call, confirms, and pushes each object of the reply; connections that were
silent for five seconds are closed, so that most messages need new ones. What a call and a new connection cost
was measured on a device's interface, headers of Ethernet, IP and TCP included;
``tests/end_to_end/test_bytes.py`` holds the sum against an interface's counters.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flwr.app import Message
from flwr.common.config import get_project_dir
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects


@dataclass(frozen=True)
class Cost:
    """Bytes on a device's link, received and sent."""

    down: float
    up: float

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.down * times, self.up * times)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.down + other.down, self.up + other.up)


CALL: Final = Cost(down=297.0, up=910.0)
"""A call with hardly any content: its headers, of which the node's signature is most, and the answer's."""

CONNECTION: Final = Cost(down=1790.0, up=1170.0)
"""A new connection, with a server's certificate of ``wash-fl fleet certificates``."""

NAME: Final = 70.0
"""The name of an object where a message, or what is wanted of it, is listed."""

HEADERS: Final = 0.05
"""Of content: headers of TLS, TCP, IP and Ethernet in packets of 1,400 to 1,500 bytes."""

ACKNOWLEDGEMENTS: Final = 0.024
"""Of content, in the other direction: a packet without any for every second one with it."""

POLL_SECONDS: Final = 3.1
HEARTBEAT_SECONDS: Final = 24.0

_REAL: Final = ("HttpGrid", "GrpcGrid")
"""What Flower's ways to nodes behind a network are called; others are in one process or machine."""


@dataclass(frozen=True)
class Size:
    """A message as Flower serializes it.

    Attributes
    ----------
    bytes : int
        The sum over the objects that it is sent as.
    objects : int
        How many these are.
    """

    bytes: int
    objects: int

    @classmethod
    def of(cls, message: Message) -> "Size":
        """Return the size of a message."""
        objects = get_all_nested_objects(message).values()
        return cls(sum(len(each.deflate()) for each in objects), len(objects))


def pulled(size: Size) -> Cost:
    """Return what it costs to pull a message, besides its bytes: asking, each object, confirming."""
    lists = Cost(NAME * size.objects, NAME * size.objects)
    content = Cost(HEADERS * size.bytes, ACKNOWLEDGEMENTS * size.bytes)
    # The second of two pullers has a connection of its own.
    return CALL * (2 + size.objects) + CONNECTION * 1 + lists + content


def pushed(size: Size) -> Cost:
    """Return what it costs to push a reply, besides its bytes: announcing it, and each object."""
    # Announced with all its objects; the answer lists those that are wanted.
    lists = Cost(NAME * size.objects, 2 * NAME * size.objects)
    content = Cost(ACKNOWLEDGEMENTS * size.bytes, HEADERS * size.bytes)
    # What was open when the message was pulled is closed by now.
    return CALL * (1 + size.objects) + CONNECTION * 2 + lists + content


def fetched(app: int) -> Cost:
    """Return what it costs to get a run and its app, besides the app's bytes."""
    return CALL * 2 + Cost(HEADERS * app, ACKNOWLEDGEMENTS * app)


def waited(idle: float, busy: float) -> Cost:
    """Return what it costs a device to wait for messages, and to be at work on one, for so many seconds."""
    return CALL * (idle / POLL_SECONDS + idle / HEARTBEAT_SECONDS) + (CALL + CONNECTION) * (
        busy / HEARTBEAT_SECONDS
    )


class Transport:
    """The bytes that Flower itself adds for the members of a run, and the app that it hands out.

    Parameters
    ----------
    app : int
        Bytes of the app, which each device gets once.
    now : callable
        The clock that Flower stamps messages by: seconds since 1970.
    """

    def __init__(self, app: int, now: Callable[[], float] = time.time) -> None:
        self._app = app
        self._now = now
        self._began = now()
        self._costs: dict[int, Cost] = {}
        self._busy: dict[int, float] = {}

    def answered(self, member: int, request: Message, sent: Size, reply: Size) -> None:
        """Count a request that a member has answered just now."""
        before = self._costs.get(member) or fetched(self._app)
        self._costs[member] = before + pulled(sent) + pushed(reply)
        busy = max(0.0, self._now() - request.metadata.created_at)
        self._busy[member] = self._busy.get(member, 0.0) + busy

    def total(self) -> dict[str, int]:
        """Return the sums over all members: ``down_app``, ``down_transport`` and ``up_transport``."""
        passed = max(0.0, self._now() - self._began)
        costs = Cost(0.0, 0.0)
        for member, each in self._costs.items():
            busy = min(passed, self._busy[member])
            costs += each + waited(passed - busy, busy)
        return {
            "down_app": self._app * len(self._costs),
            "down_transport": round(costs.down),
            "up_transport": round(costs.up),
        }


def transport_of(grid: Grid) -> Transport | None:
    """Return what counts Flower's transport to a grid's nodes; None if there is no network between."""
    inner: Any = getattr(grid, "inner", grid)
    if type(inner).__name__ not in _REAL:
        return None
    run = inner.run
    return Transport(app_bytes(get_project_dir(run.fab_id, run.fab_version, run.fab_hash)))


def app_bytes(folder: Path) -> int:
    """Return the size of the app that Flower has unpacked in a folder: a ZIP file without compression."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    if not sizes:
        return 0
    # With it comes a list of the files: names, hashes, and sizes in bits.
    listed = sum(len(name.encode()) + len(str(8 * size)) + 67 for name, size in sizes.items()) - 1
    sizes[".info/CONTENT"] = listed
    return 22 + sum(76 + 2 * len(name.encode()) + size for name, size in sizes.items())
