"""One open call of a member: what it says, what it is told, and how it ends."""

import asyncio
import threading
from contextlib import suppress
from typing import Any, Final

import grpc
import grpc.aio

from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.errors import ExchangeError
from wash_fl.protocol.events import Hello
from wash_fl.protocol.messages import ServerReply, ServerStatus
from wash_fl.stream.counting import Counted, connection_of
from wash_fl.stream.wire import read, reply_messages

_NEWER: Final = "a newer call of this member took its place"
_ROOM: Final = "too many calls have not said whose they are: call again"


class Call:
    """One open call of a member.

    Attributes
    ----------
    member : int or None
        Whose it is, once that is proven.
    who : str
        Whose it says it is, for the log.
    peer : str
        From where it comes, in gRPC's words.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Any, counted: Counted) -> None:
        self.member: int | None = None
        self.who = "somebody"
        self._loop = loop
        self._thread = threading.get_ident()
        self._context = context
        self.counted = counted
        self.peer: str = context.peer()
        self._connection = connection_of(self.peer)
        self._told: asyncio.Future[ServerReply] | None = None
        self._task = asyncio.current_task()
        self._ending: asyncio.Task[None] | None = None
        self._read = 0

    async def hello(self) -> Hello | None:
        """Return who calls; None if the call ends before it says so."""
        data = await self.read()
        if data is None:
            return None
        message = read(wire.MemberMessage, data)
        if message.WhichOneof("kind") != "hello":
            raise ExchangeError("a call that does not begin with a hello: update the older side.")
        hello = message.hello
        self.who = f"member {hello.member}"
        return Hello(
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
        self.counted.carried(self._connection, up=len(message))
        return message

    async def say(self, reply: ServerReply) -> None:
        """Send a reply."""
        sent = 0
        for message in reply_messages(reply):
            sent += len(message)
            self.counted.carried(self._connection, down=len(message))
            await self._context.write(message)
        if self.member is not None:
            self.counted.down(self.member, reply, sent)

    def account(self, packet: bytes) -> None:
        """Count what was read since the last time, of which this packet is a part."""
        assert self.member is not None
        self.counted.up(self.member, packet, self._read)
        self._read = 0

    def expect(self) -> "asyncio.Future[ServerReply]":
        """Return what :meth:`tell` will be told."""
        self._told = self._loop.create_future()
        return self._told

    def tell(self, reply: ServerReply) -> None:
        """Take the reply to the last offer, from any thread."""
        if threading.get_ident() == self._thread:
            self._resolve(reply)
        else:
            self._loop.call_soon_threadsafe(self._resolve, reply)

    def replace(self) -> None:
        """End this call: its member has a newer one."""
        if self._told is not None and not self._told.done():
            self._resolve(ServerReply(ServerStatus.REPLACED, 0, reason=_NEWER))
        else:
            self._ending = self._loop.create_task(self._end(grpc.StatusCode.ABORTED, _NEWER))

    def make_room(self) -> None:
        """End this call: it has not said whose it is, and others wait."""
        self._ending = self._loop.create_task(self._end(grpc.StatusCode.RESOURCE_EXHAUSTED, _ROOM))

    async def _end(self, status: grpc.StatusCode, reason: str) -> None:
        """End the call while it waits to be spoken to: cancelling alone would not tell the other side."""
        try:
            with suppress(grpc.aio.AbortError):
                await self._context.abort(status, reason)
        finally:
            if self._task is not None:
                self._task.cancel()

    def _resolve(self, reply: ServerReply) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(reply)
