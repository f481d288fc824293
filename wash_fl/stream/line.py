"""A member's connection to the server: one gRPC call, made again when it breaks.

The call is read by a thread of its own, so that an answer can be awaited for a limited time, and arrives
while the member computes.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import grpc

from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.errors import ExchangeError
from wash_fl.member.exchanging import LineLostError
from wash_fl.member.member import Member
from wash_fl.member.snapshot import Progress
from wash_fl.protocol.messages import ServerReply
from wash_fl.protocol.over_streams import VERSION
from wash_fl.protocol.text import printable
from wash_fl.stream.ticket import Ticket
from wash_fl.stream.wire import (
    CHANNEL,
    PATH,
    STATUS_OF,
    Assembly,
    longest_delivery,
    offer_messages,
    read,
)

CONNECT_SECONDS: Final = 10.0
"""How long one attempt to reach the server may take."""

_OPTIONS: Final = (*CHANNEL, ("grpc.enable_retries", 0))


class GrpcLine:
    """A :class:`~wash_fl.member.exchanging.Line` over gRPC.

    Parameters
    ----------
    ticket : Ticket
        From the train message.
    run, layout : bytes
        Identity of the run, and fingerprint of what is exchanged.
    member : int
        The member's index.
    number : int
        The round.
    initial : str
        Hash of the weights the member started from.
    incarnation : int
        The number of that start.
    longest : int
        The most bytes that a delivery may have.
    """

    def __init__(
        self,
        ticket: Ticket,
        *,
        run: bytes,
        layout: bytes,
        member: int,
        number: int,
        initial: str,
        incarnation: int,
        longest: int,
    ) -> None:
        self._ticket = ticket
        self._hello = wire.Hello(
            version=VERSION,
            run=run,
            layout=layout,
            member=member,
            token=ticket.token,
            round=number,
            initial=initial,
            incarnation=incarnation,
        )
        self._longest = longest
        self._call: Call | None = None

    @property
    def connected(self) -> bool:
        """Whether the server was reached, and the call is not known to be broken."""
        return self._call is not None and not self._call.broken

    @property
    def patience(self) -> float:
        """Seconds for which a member with an offer out calls again."""
        return self._ticket.patience

    def connect(self, applied: int) -> ServerReply:
        """Call the server, in place of any call before, and say hello."""
        self.cut()
        self._call = Call(self._ticket)
        self._hello.applied = applied
        self._call.say(wire.MemberMessage(hello=self._hello).SerializeToString())
        try:
            return self._receive(CONNECT_SECONDS)
        except LineLostError:
            self.cut()
            raise

    def send(self, exchange: int, applied: int, packet: bytes) -> None:
        """Send an offer."""
        if self._call is None or self._call.broken:
            raise LineLostError("the call is broken")
        for message in offer_messages(exchange, applied, packet):
            self._call.say(message)

    def receive(self) -> ServerReply:
        """Return the answer to the offer."""
        return self._receive(self._ticket.patience)

    def close(self, applied: int) -> None:
        """Say farewell, and hang up."""
        if self._call is not None:
            farewell = wire.MemberMessage(farewell=wire.Farewell(applied=applied))
            self._call.hang_up(farewell.SerializeToString())
            self._call = None

    def cut(self) -> None:
        """Break the call without a word."""
        if self._call is not None:
            self._call.cut()
            self._call = None

    def _receive(self, seconds: float) -> ServerReply:
        if self._call is None:
            raise LineLostError("there is no call")
        assembly = Assembly(self._longest)
        first: Any = None
        packet: bytes | None = None
        while packet is None:
            message = read(wire.ServerMessage, self._call.hear(seconds))
            first = first or message
            packet = assembly.add(message.packet, more=message.more)
        status = STATUS_OF.get(first.status)
        if status is None:
            raise ExchangeError(f"the server said {first.status}, which is no status here: update.")
        return ServerReply(status, first.settled, packet, printable(first.reason))


def line_of(ticket: Ticket, run: bytes, number: int) -> Callable[[Member, Progress], GrpcLine]:
    """Return how a member's line for a round is made, once the member is known."""

    def line(member: Member, progress: Progress) -> GrpcLine:
        layout = member.layout
        return GrpcLine(
            ticket,
            run=run,
            layout=layout.fingerprint,
            member=member.index,
            number=number,
            initial=progress.initial,
            incarnation=progress.incarnation,
            longest=longest_delivery(member.draw.schedule.config, len(layout.slots) * layout.size),
        )

    return line


class Call:
    """One gRPC call, and the thread that reads it."""

    def __init__(self, ticket: Ticket) -> None:
        if ticket.authority:
            self._channel = grpc.secure_channel(
                ticket.address, grpc.ssl_channel_credentials(ticket.authority), _OPTIONS
            )
        else:
            self._channel = grpc.insecure_channel(ticket.address, _OPTIONS)
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._in: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        self.broken = False
        self._call: Any = self._channel.stream_stream(PATH)(self._messages(), wait_for_ready=False)
        self._reader = threading.Thread(target=self._read, name="wash-fl stream", daemon=True)
        self._reader.start()

    def say(self, message: bytes) -> None:
        """Send a message, some time soon."""
        self._out.put(message)

    def hear(self, seconds: float) -> bytes:
        """Return the next message.

        Raises
        ------
        LineLostError
            If the call breaks, or nothing comes in so many seconds.
        """
        try:
            message = self._in.get(timeout=seconds)
        except queue.Empty:
            self.broken = True
            raise LineLostError(f"no answer in {seconds:g} s") from None
        if isinstance(message, Exception):
            raise LineLostError(_why(message)) from message
        return message

    def hang_up(self, farewell: bytes) -> None:
        """Send a last message, and end the call when it is through."""
        self._out.put(farewell)
        self._out.put(None)
        self._reader.join(2.0)
        self.cut()

    def cut(self) -> None:
        """End the call at once."""
        self.broken = True
        self._out.put(None)
        self._call.cancel()
        self._channel.close()

    def _messages(self) -> Iterator[bytes]:
        while (message := self._out.get()) is not None:
            yield message

    def _read(self) -> None:
        try:
            for message in self._call:
                self._in.put(message)
            error: Exception = LineLostError("the server has ended the call")
        except grpc.RpcError as lost:
            error = lost
        self.broken = True
        with suppress(Exception):
            self._in.put(error)


def _why(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        details = getattr(error, "details", None)
        code = getattr(error, "code", None)
        said = f"{code().name.lower() if callable(code) else ''}: {details() if callable(details) else ''}"
        return printable(said)
    return str(error)
