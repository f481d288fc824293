"""How much of a server the stream port may take, whoever calls: connections, their time, and files."""

from contextlib import suppress
from typing import Any, Final

from wash_fl.stream.wire import CHANNEL

resource: Any = None
with suppress(ModuleNotFoundError):  # Windows
    import resource

HELLO_SECONDS: Final = 10.0
"""How long a connection may take to be one, and then a call until it has said who it is."""

IDLE_SECONDS: Final = 20.0
"""How long a connection may be open without a call."""

CONNECTIONS: Final = 256
"""How many connections there may be beside two of each member: each takes a file descriptor."""

CALLS: Final = 8
"""Calls of one connection: a member has one, and the one before it may not be over yet."""

Option = tuple[str, int]


def server_options(members: int) -> tuple[Option, ...]:
    """Return the options of a server, as gRPC names them.

    Parameters
    ----------
    members : int
        Size of the ensemble.
    """
    return (
        *CHANNEL,
        # Two servers on one port would each see half of the members.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_concurrent_streams", CALLS),
        ("grpc.server_handshake_timeout_ms", int(1000 * HELLO_SECONDS)),
        ("grpc.max_connection_idle_ms", int(1000 * IDLE_SECONDS)),
        ("grpc.max_allowed_incoming_connections", most_connections(2 * members + CONNECTIONS)),
    )


def most_connections(wanted: int) -> int:
    """Return how many connections there may be: as many as wanted, or half of the files that may be open."""
    if resource is None:
        return wanted
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else min(wanted, max(1, files // 2))
