"""The members' streams, without gRPC: calls that carry messages in order, until they break."""

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wash_fl.lab.search.letters import flipped
from wash_fl.lab.search.moments import Fuse, Killed
from wash_fl.lab.search.violation import Violation
from wash_fl.member.exchanging import LineLostError
from wash_fl.member.snapshot import Progress
from wash_fl.protocol.events import CallLost, Farewell, Hello, Offered
from wash_fl.protocol.messages import ServerReply, ServerStatus
from wash_fl.protocol.over_streams import VERSION
from wash_fl.stream.calls import Calls

PATIENCE: Final = 45.0
"""Seconds for which a member with an offer out calls again."""


@dataclass(eq=False)
class Call:
    """A call of a member.

    Attributes
    ----------
    member : int
        Whose it is.
    up, down : deque
        What is on its way to the server, and to the member; at last that the call is over.
    broken : bool
        Whether the member knows that it is over.
    admitted : bool
        Whether the server has let it in.
    awaits : bool
        Whether the server owes it a reply to an offer.
    """

    member: int
    up: deque[Hello | Offered | Farewell | CallLost] = field(default_factory=deque)
    down: deque[ServerReply | LineLostError] = field(default_factory=deque)
    broken: bool = False
    admitted: bool = False
    awaits: bool = False

    def tell(self, reply: ServerReply) -> None:
        """Answer the offer that is to be answered."""
        if self.awaits:
            self.awaits = False
            self.down.append(reply)


class Streams:
    """All calls, and on the server's side which of them count.

    Attributes
    ----------
    calls : list of Call
        Those on which something is still to come to the server.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._counting: Calls[Call] = Calls()

    def open(self, member: int) -> Call:
        """Return a new call of a member, whose hello is still to be said."""
        call = Call(member)
        self.calls.append(call)
        return call

    def arrives(self, call: Call, *, flip: int | None = None) -> Hello | Offered | Farewell | CallLost | None:
        """Return what the server's coordinator is told next on a call, in which a bit may be flipped.

        None if it is told nothing: the call does not count any more.
        """
        event = call.up.popleft()
        member = call.member
        if isinstance(event, CallLost | Farewell):
            counts = self._counting.counts(member, call)
            if isinstance(event, Farewell):
                call.up.clear()
                call.up.append(CallLost(member))
                return event if counts else None
            self.calls.remove(call)
            return event if self._counting.end(member, call) else None
        if isinstance(event, Hello):
            return event
        if not self._counting.counts(member, call):
            return None
        call.awaits = True
        return event if flip is None else replace(event, packet=flipped(event.packet, flip))

    def adrift(self, member: int) -> Callable[[], bool]:
        """Return what tells whether an offer that is on a member's way to the server now may still arrive."""
        call = self._counting.of(member)

        def arrives() -> bool:
            if call is None or not self._counting.counts(member, call):
                return False
            return any(isinstance(each, Offered) for each in call.up)

        return arrives

    def greeted(self, call: Call, reply: ServerReply) -> None:
        """Let a call in, in place of the one before, if that is the coordinator's reply to its hello."""
        if reply.status is not ServerStatus.WELCOME:
            call.down.append(reply)
            self.lose(call)
            return
        before = self._counting.admit(call.member, call)
        call.admitted = True
        call.down.append(reply)
        if before is not None:
            if before.awaits:
                before.tell(ServerReply(ServerStatus.REPLACED, 0, reason="a newer call took its place"))
            else:
                before.down.append(LineLostError("a newer call took its place"))

    def tell(self, member: int, reply: ServerReply) -> None:
        """Answer a member on the call that counts."""
        call = self._counting.of(member)
        if call is not None:
            call.tell(reply)

    def lose(self, call: Call) -> None:
        """Break a call, with what is on its way to the server; both sides learn of it in their time."""
        call.up.clear()
        call.up.append(CallLost(call.member))
        call.down.append(LineLostError("the call is broken"))

    def server_dies(self) -> None:
        """Break all calls, and forget them."""
        for call in self.calls:
            call.up.clear()
            call.down.append(LineLostError("the server is gone"))
        self.calls.clear()
        self._counting = Calls()


class SimulatedLine:
    """A :class:`~wash_fl.member.exchanging.Line` over these calls.

    Parameters
    ----------
    streams : Streams
        The calls.
    fuse : Fuse
        The member's.
    hello : Hello
        What it says first, but for how far it is.
    reachable : callable
        Whether there is a server.
    said : callable
        Told of the last exchange that the member says it has applied.
    pause : callable
        ``pause(call)`` returns the next that comes on a call, or raises it.
    """

    def __init__(
        self,
        streams: Streams,
        fuse: Fuse,
        hello: Hello,
        *,
        reachable: Callable[[], bool],
        said: Callable[[int], None],
        pause: Callable[[Call], Any],
    ) -> None:
        self._streams = streams
        self._fuse = fuse
        self._hello = hello
        self._reachable = reachable
        self._said = said
        self._pause = pause
        self._call: Call | None = None

    @property
    def connected(self) -> bool:
        """Whether the call is not known to be broken."""
        call = self._call
        return call is not None and not (
            call.broken or any(isinstance(each, Exception) for each in call.down)
        )

    @property
    def patience(self) -> float:
        """Seconds for which a member with an offer out calls again."""
        return PATIENCE

    def connect(self, applied: int) -> ServerReply:
        """Call the server, and say hello."""
        self.cut()
        self._fuse.burn("before calling")
        if not self._reachable():
            raise LineLostError("nobody answers")
        self._call = self._streams.open(self._hello.member)
        self._said(applied)
        self._call.up.append(replace(self._hello, applied=applied))
        return self.receive()

    def send(self, exchange: int, applied: int, packet: bytes) -> None:
        """Send an offer."""
        if self._call is None or not self.connected:
            raise LineLostError("the call is broken")
        self._fuse.burn("before sending an offer")
        self._said(applied)
        self._call.up.append(Offered(self._call.member, exchange, applied, packet))
        self._fuse.burn("after sending an offer")

    def receive(self) -> ServerReply:
        """Return what comes next."""
        call = self._call
        if call is None or (call.broken and not call.down):
            raise LineLostError("there is no call")
        try:
            reply: ServerReply = self._pause(call)
        except LineLostError:
            call.broken = True
            raise
        return reply

    def close(self, applied: int) -> None:
        """Say farewell, and hang up."""
        if isinstance(sys.exception(), Killed):
            raise Violation(f"member {self._hello.member} says farewell, and was killed")
        if self._call is not None and self.connected:
            self._said(applied)
            self._call.up.append(Farewell(self._call.member, applied))
        self.cut()

    def cut(self) -> None:
        """Break the call; what was sent before may still arrive."""
        if self._call is not None:
            self._call.broken = True
            self._call.up.append(CallLost(self._call.member))
            self._call = None


def hello_of(progress: Progress, *, run: bytes, layout: bytes, token: bytes, number: int) -> Hello:
    """Return what a member says first in a round; it is to add how far it is."""
    return Hello(
        VERSION,
        run,
        layout,
        progress.member,
        token,
        number,
        progress.applied,
        progress.initial,
        progress.incarnation,
    )
