"""The streams of gRPC around a hub, on a thread of their own in the ServerApp's process."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import grpc
import grpc.aio

from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.errors import ExchangeError, RunError
from wash_fl.planes.records import printable
from wash_fl.planes.stream.counting import Counted, connection_of
from wash_fl.planes.stream.hub import Greeting, Hub
from wash_fl.planes.stream.place import LISTEN, Place, split
from wash_fl.planes.stream.wire import (
    CHANNEL,
    METHOD,
    SERVICE,
    Answer,
    Assembly,
    Status,
    answer_messages,
    read,
)

logger = logging.getLogger("flwr.wash_fl")

HELLO_SECONDS: Final = 20.0
"""How long a call may be open before it has said who it is."""
_NEWER: Final = "a newer call of this member took its place"
_STOP_SECONDS: Final = 2.0
_START_SECONDS: Final = 20.0

OPTIONS: Final = (
    *CHANNEL,
    # Two servers on one port would each see half of the members.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class Service:
    """Serves the members' streams until it is stopped.

    Parameters
    ----------
    hub : Hub
        What members talk to.
    place : Place
        Where.
    members : int
        Size of the ensemble: it bounds how many calls there can be at a time.
    counted : Counted, optional
        Where bytes are counted.

    Attributes
    ----------
    address : str
        Host and port that members call.
    """

    def __init__(self, hub: Hub, place: Place, *, members: int, counted: Counted | None = None) -> None:
        self._hub = hub
        self._place = place
        self._most = 4 * members + 8
        self._counted = Counted() if counted is None else counted
        self._calls: dict[int, Call] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._started: threading.Event = threading.Event()
        self._failure: BaseException | None = None
        self._port = 0
        self._thread = threading.Thread(target=self._run, name="wash-fl streams", daemon=True)

    @property
    def address(self) -> str:
        """Host and port that members call."""
        if self._place.address:
            return self._place.address
        host, _ = split(self._place.listen, LISTEN)
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    def __enter__(self) -> "Service":
        self._thread.start()
        if not self._started.wait(_START_SECONDS) or self._failure is not None:
            raise RunError(
                f"the stream plane cannot listen on {self._place.listen} ({self._failure or 'no answer'}): "
                f"free the port, or set {LISTEN} to another."
            ) from self._failure
        self._hub.on_change = self._changed
        logger.info("members exchange over streams at %s", self.address)
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.on_change = lambda: None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_STOP_SECONDS + 5.0)

    def _changed(self) -> None:
        self._loop.call_soon_threadsafe(self._settle_when_due)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # said by whoever waits for the start
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=self._most)
        handler = grpc.stream_stream_rpc_method_handler(self._exchange)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        place = self._place
        if place.certificate:
            credentials = grpc.ssl_server_credentials([(place.key, place.certificate)])
            self._port = server.add_secure_port(place.listen, credentials)
        else:
            self._port = server.add_insecure_port(place.listen)
        await server.start()
        self._counted.watch(self._port)
        self._started.set()
        try:
            await self._end.wait()
        finally:
            await server.stop(_STOP_SECONDS)

    async def _exchange(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serve one call, from its hello to its end."""
        del requests
        call = Call(self._loop, context, self._counted)
        try:
            greeting = await asyncio.wait_for(call.greeting(), HELLO_SECONDS)
            if greeting is None:
                return
            answer = self._hub.hello(greeting)
            if answer.status is Status.WELCOME:
                self._replace(greeting.member, call)
            await call.say(answer)
            if answer.status is Status.WELCOME:
                await self._serve_member(greeting.member, call)
        except (ExchangeError, TimeoutError) as error:
            logger.warning(
                "a call of %s is ended: %s", call.who, printable(str(error)) or "it did not say who it is"
            )
            await call.say(Answer(Status.DENIED, 0, reason=printable(str(error))))
        finally:
            if call.member is not None and self._calls.get(call.member) is call:
                del self._calls[call.member]
                self._hub.lost(call.member)
            self._counted.sample()

    async def _serve_member(self, member: int, call: "Call") -> None:
        assembly: Assembly | None = None
        exchange = applied = 0
        while (data := await call.read()) is not None:
            message = read(wire.MemberMessage, data)
            kind = message.WhichOneof("kind")
            if kind == "farewell":
                self._hub.farewell(member, message.farewell.applied)
                self._settle_when_due()
                return
            if kind != "offer":
                raise ExchangeError(f"a second {kind or 'message without content'} in one call")
            offer = message.offer
            if assembly is None:
                assembly = Assembly(self._hub.longest_offer)
                exchange, applied = offer.exchange, offer.applied
            packet = assembly.add(offer.packet, more=offer.more)
            if packet is None:
                continue
            assembly = None
            call.account(packet)
            told = call.expect()
            self._hub.offer(member, exchange, applied, packet, call.tell)
            self._settle_when_due()
            answer = await told
            await call.say(answer)
            if answer.status is Status.REPLACED:
                return

    def _replace(self, member: int, call: "Call") -> None:
        """Make this the member's call, in place of one that may still be open."""
        before = self._calls.get(member)
        call.member = member
        self._calls[member] = call
        if before is not None:
            before.replace()

    def _settle_when_due(self) -> None:
        """Settle what is due, and come back when the next is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hub.settle_if_due()
        due = self._hub.due()
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, due - self._hub.now()) + 1e-3, self._settle_when_due)


class Call:
    """One open call of a member.

    Attributes
    ----------
    member : int or None
        Whose it is, once that is proven.
    who : str
        Whose it says it is, for the log.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Any, counted: Counted) -> None:
        self.member: int | None = None
        self.who = "somebody"
        self._loop = loop
        self._thread = threading.get_ident()
        self._context = context
        self._counted = counted
        self._connection = connection_of(context.peer())
        self._told: asyncio.Future[Answer] | None = None
        self._task = asyncio.current_task()
        self._ending: asyncio.Task[None] | None = None
        self._read = 0

    async def greeting(self) -> Greeting | None:
        """Return who calls; None if the call ends before it says so."""
        data = await self.read()
        if data is None:
            return None
        message = read(wire.MemberMessage, data)
        if message.WhichOneof("kind") != "hello":
            raise ExchangeError("a call that does not begin with a hello: update the older side.")
        hello = message.hello
        self.who = f"member {hello.member}"
        return Greeting(
            hello.version,
            hello.run,
            hello.layout,
            hello.member,
            hello.token,
            hello.round,
            hello.applied,
            hello.initial,
            hello.incarnation,
        )

    async def read(self) -> bytes | None:
        """Return the next message; None at the end of the call."""
        data = await self._context.read()
        if data is grpc.aio.EOF:
            return None
        message: bytes = data
        self._read += len(message)
        self._counted.carried(self._connection, up=len(message))
        return message

    async def say(self, answer: Answer) -> None:
        """Send an answer."""
        sent = 0
        for message in answer_messages(answer):
            sent += len(message)
            self._counted.carried(self._connection, down=len(message))
            await self._context.write(message)
        if self.member is not None:
            self._counted.down(self.member, answer, sent)

    def account(self, packet: bytes) -> None:
        """Count what was read since the last time, of which this packet is a part."""
        assert self.member is not None
        self._counted.up(self.member, packet, self._read)
        self._read = 0

    def expect(self) -> "asyncio.Future[Answer]":
        """Return what :meth:`tell` will be told."""
        self._told = self._loop.create_future()
        return self._told

    def tell(self, answer: Answer) -> None:
        """Take the answer to the last offer, from any thread."""
        if threading.get_ident() == self._thread:
            self._resolve(answer)
        else:
            self._loop.call_soon_threadsafe(self._resolve, answer)

    def replace(self) -> None:
        """End this call: its member has a newer one."""
        if self._told is not None and not self._told.done():
            self._resolve(Answer(Status.REPLACED, 0, reason=_NEWER))
        else:
            self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        """End the call while it waits to be spoken to: cancelling alone would not tell the other side."""
        try:
            with suppress(grpc.aio.AbortError):
                await self._context.abort(grpc.StatusCode.ABORTED, _NEWER)
        finally:
            if self._task is not None:
                self._task.cancel()

    def _resolve(self, answer: Answer) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(answer)
