"""The server's streams: gRPC around a coordinator, on a thread of its own in the ServerApp's process."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
import grpc.aio

from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.errors import ExchangeError, RunError
from wash_fl.faults import points
from wash_fl.protocol.commands import Command, OfferTaken, Settled, Tell
from wash_fl.protocol.events import CallLost, Farewell, Hello, Offered, TimeUp
from wash_fl.protocol.messages import ServerReply, ServerStatus
from wash_fl.protocol.over_streams import OverStreams
from wash_fl.protocol.text import printable
from wash_fl.stream import limits
from wash_fl.stream.call import Call
from wash_fl.stream.calls import Calls
from wash_fl.stream.counting import Counted
from wash_fl.stream.door import Door, address_of
from wash_fl.stream.guard import Guard
from wash_fl.stream.place import LISTEN, Place, split
from wash_fl.stream.reports import ExchangeReport, OnExchange
from wash_fl.stream.ticket import Ticket
from wash_fl.stream.wire import (
    METHOD,
    SERVICE,
    Assembly,
    longest_packet,
    read,
)

logger = logging.getLogger("flwr.wash_fl")

RESTART_SECONDS: Final = 120.0
"""How long a member with an offer out waits for a server that is started again."""
SAMPLE_SECONDS: Final = 1.0
"""How often the kernel is asked what the connections have carried."""
WARN_SECONDS: Final = 60.0
"""How often it is said that strangers wait."""
_STOP_SECONDS: Final = 2.0
_START_SECONDS: Final = 20.0


class Service:
    """Serves the members' streams until it is stopped.

    Parameters
    ----------
    guard : Guard
        The coordinator, of a run on the stream plane.
    place : Place
        Where to serve.
    members : int
        Size of the ensemble: it bounds how many calls there can be at a time.
    deadline : float
        Seconds an exchange waits for its members.
    on_exchange : callable
        Gets a report after each settled exchange, with the coordinator locked.

    Attributes
    ----------
    address : str
        Host and port that members call.
    counted : Counted
        The streams' bytes.
    """

    def __init__(
        self,
        guard: Guard,
        place: Place,
        *,
        members: int,
        deadline: float,
        on_exchange: OnExchange = lambda report: None,
    ) -> None:
        self.counted = Counted()
        self._guard = guard
        self._place = place
        self._members = members
        self._patience = deadline + RESTART_SECONDS
        self._on_exchange = on_exchange
        self._sampled = 0.0
        self._warn_again_at = 0.0
        self._calls: Calls[Call] = Calls()
        self._door: Door[Call] = Door(members)
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
        logger.info("members exchange over streams at %s", self.address)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_STOP_SECONDS + 5.0)

    def fields(self, member: int) -> dict[str, Any]:
        """Return the ticket for a member's stream, as fields of a request to train."""
        with self._guard.turn() as coordinator:
            token = _streams_of(coordinator.exchanges).token(member)
        return Ticket(self.address, self._place.authority, token, self._patience).fields()

    def execute(self, commands: Iterable[Command]) -> None:
        """Do what the coordinator says, while it is locked: answer members, report exchanges."""
        for command in commands:
            if isinstance(command, Tell):
                call = self._calls.of(command.member)
                if call is not None:
                    call.tell(command.reply)
            elif isinstance(command, OfferTaken):
                points.reach("offered", exchange=command.exchange)
            elif isinstance(command, Settled):
                self._report(command)

    def changed(self) -> None:
        """Take note, from any thread, that something may be due at another time than before."""
        self._loop.call_soon_threadsafe(self._settle_when_due)

    def _report(self, command: Settled) -> None:
        points.reach("settled", exchange=command.settlement.exchange)
        if time.monotonic() - self._sampled > SAMPLE_SECONDS:
            # Before a connection is gone, and with it what the kernel knows of it.
            self._sampled = time.monotonic()
            self.counted.sample()
        self._on_exchange(ExchangeReport(command.settlement, command.seconds, self.counted.row()))

    def _handle(self, event: Hello | Offered | Farewell | CallLost | TimeUp) -> list[Command]:
        """Tell the coordinator something, and do what it says; return what that was.

        Once it has failed, nothing more is said to it: who has it in the other thread ends the run.
        """
        if self._guard.failure is not None:
            return []
        with self._guard.turn() as coordinator:
            commands = coordinator.handle(event, now=self._guard.now())
            self.execute(commands)
        return commands

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # said by whoever waits for the start
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        # Room for who is on its way out, too: who is one too many is ended by the door, which knows why.
        calls = 2 * (self._members + self._door.most)
        options = limits.server_options(self._members)
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=calls)
        handler = grpc.stream_stream_rpc_method_handler(self._exchange)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        place = self._place
        if place.certificate:
            credentials = grpc.ssl_server_credentials([(place.key, place.certificate)])
            self._port = server.add_secure_port(place.listen, credentials)
        else:
            self._port = server.add_insecure_port(place.listen)
        await server.start()
        self.counted.watch(self._port)
        self._started.set()
        try:
            await self._end.wait()
        finally:
            await server.stop(_STOP_SECONDS)

    async def _exchange(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serve one call, from its hello to its end."""
        del requests
        call = Call(self._loop, context, self.counted)
        try:
            self._let_wait(call)
            hello = await asyncio.wait_for(call.hello(), limits.HELLO_SECONDS)
            if hello is None:
                return
            reply = self._greet(hello)
            if reply.status is ServerStatus.WELCOME:
                self._door.leave(call)
                self._replace(hello.member, call)
            await call.say(reply)
            if reply.status is ServerStatus.WELCOME:
                await self._serve_member(hello.member, call)
        except (ExchangeError, TimeoutError) as error:
            logger.warning(
                "a call of %s is ended: %s", call.who, printable(str(error)) or "it did not say who it is"
            )
            await call.say(ServerReply(ServerStatus.DENIED, 0, reason=printable(str(error))))
        finally:
            self._door.leave(call)
            if call.member is not None and self._calls.end(call.member, call):
                self._handle(CallLost(call.member))
            self.counted.sample()

    def _let_wait(self, call: Call) -> None:
        """Let a call say whose it is, in place of another that does not if there are too many."""
        other = self._door.enter(call, call.peer)
        if other is None:
            return
        other.make_room()
        if time.monotonic() >= self._warn_again_at:
            self._warn_again_at = time.monotonic() + WARN_SECONDS
            logger.warning(
                "%d calls of the stream port wait and do not say whose they are, the last from %s; so far %d "
                "made room for others. Let only the devices' network reach the port.",
                len(self._door),
                address_of(call.peer),
                self._door.turned_away,
            )

    def _greet(self, hello: Hello) -> ServerReply:
        """Return what the coordinator says to who calls: its call is not known as the member's yet."""
        with self._guard.turn() as coordinator:
            (command,) = coordinator.handle(hello, now=self._guard.now())
        assert isinstance(command, Tell), "a hello is answered at once"
        return command.reply

    async def _serve_member(self, member: int, call: Call) -> None:
        assembly: Assembly | None = None
        exchange = applied = 0
        # It may have come before this call was replaced, and be read only now.
        while (data := await call.read()) is not None and self._calls.counts(member, call):
            message = read(wire.MemberMessage, data)
            kind = message.WhichOneof("kind")
            if kind == "farewell":
                self._handle(Farewell(member, message.farewell.applied))
                self._settle_when_due()
                return
            if kind != "offer":
                raise ExchangeError(f"a second {kind or 'message without content'} in one call")
            offer = message.offer
            if assembly is None:
                assembly = Assembly(self._longest_offer())
                exchange, applied = offer.exchange, offer.applied
            packet = assembly.add(offer.packet, more=offer.more)
            if packet is None:
                continue
            assembly = None
            call.account(packet)
            told = call.expect()
            self._handle(Offered(member, exchange, applied, packet))
            self._settle_when_due()
            reply = await told
            await call.say(reply)
            if reply.status is ServerStatus.REPLACED:
                return

    def _longest_offer(self) -> int:
        with self._guard.turn() as coordinator:
            return longest_packet(_streams_of(coordinator.exchanges).longest_offer)

    def _replace(self, member: int, call: Call) -> None:
        """Make this the member's call, in place of one that may still be open."""
        call.member = member
        before = self._calls.admit(member, call)
        if before is not None:
            before.replace()

    def _settle_when_due(self) -> None:
        """Settle what is due, and come back when the next is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._handle(TimeUp())
        if self._guard.failure is not None:
            return
        with self._guard.turn() as coordinator:
            due = coordinator.exchanges.due()
        if due is not None:
            left = max(0.0, due - self._guard.now())
            self._timer = self._loop.call_later(left + 1e-3, self._settle_when_due)


def _streams_of(exchanges: object) -> OverStreams:
    assert isinstance(exchanges, OverStreams), "a run on another plane has no streams"
    return exchanges
