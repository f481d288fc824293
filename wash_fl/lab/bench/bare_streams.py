"""An exchange by gRPC alone, which nothing built on it can be faster than.

Messages of the same size travel over the same TLS between as many processes. Everything else is left out: no
tensors, checks, checksums, records, logs or reconnection.
"""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import grpc
import grpc.aio

from wash_fl.lab.bench.processes import results_of
from wash_fl.stream.place import Place
from wash_fl.stream.wire import CHANNEL, METHOD, PATH, SERVICE

WARM: Final = 50
_START_SECONDS: Final = 20.0


def bare_times(place: Place, members: int, size: int, exchanges: int) -> list[float]:
    """Return the seconds of each exchange of each member: a message up, and when all are in, one down.

    Parameters
    ----------
    place : Place
        Whose certificate to serve with.
    members, size, exchanges : int
        How many processes; bytes of a message; how many exchanges after the first ``WARM``.
    """
    with _serving(place, members) as address:
        work = [(Caller(address, place.authority, size, WARM + exchanges),)] * members
        return [each for times in results_of(_member, work) for each in times[WARM:]]


@dataclass(frozen=True)
class Caller:
    """What a process is given: whom to call, whom to trust, bytes of a message, and how many exchanges."""

    address: str
    authority: bytes
    size: int
    exchanges: int


def _member(caller: Caller, barrier: Barrier, connection: Connection) -> None:
    out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def messages() -> Iterator[bytes]:
        while (message := out.get()) is not None:
            yield message

    message, times = bytes(caller.size), []
    credentials = grpc.ssl_channel_credentials(caller.authority)
    with grpc.secure_channel(caller.address, credentials, CHANNEL) as channel:
        answers: Any = channel.stream_stream(PATH)(messages())
        barrier.wait()
        for _ in range(caller.exchanges):
            began = time.perf_counter()
            out.put(message)
            next(answers)
            times.append(time.perf_counter() - began)
        out.put(None)
    connection.send(times)


@contextmanager
def _serving(place: Place, members: int) -> Iterator[str]:
    """Serve, on a thread of its own, and yield the address."""
    started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = queue.SimpleQueue()

    async def serve() -> None:
        waiting: list[tuple[bytes, asyncio.Future[bytes]]] = []
        loop, end = asyncio.get_running_loop(), asyncio.Event()

        async def exchange(requests: AsyncIterator[bytes], context: Any) -> None:
            del requests
            while (message := await context.read()) is not grpc.aio.EOF:
                reply: asyncio.Future[bytes] = loop.create_future()
                waiting.append((message, reply))
                if len(waiting) == members:
                    # Everybody is answered with the message of whoever came before.
                    for number, (_, each) in enumerate(waiting):
                        each.set_result(waiting[number - 1][0])
                    waiting.clear()
                await context.write(await reply)

        server = grpc.aio.server(options=CHANNEL)
        handler = grpc.stream_stream_rpc_method_handler(exchange)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        port = server.add_secure_port(
            place.listen, grpc.ssl_server_credentials([(place.key, place.certificate)])
        )
        await server.start()
        started.put((loop, end, port))
        try:
            await end.wait()
        finally:
            await server.stop(None)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    loop, end, port = started.get(timeout=_START_SECONDS)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(_START_SECONDS)
