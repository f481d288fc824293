"""Requests that are out: what was sent to whom, and who has not answered yet.

Every request may be repeated, for members answer a repeated one as they did the first. So what is lost
because a process died is asked once more, here, and only answers that are final are handed out.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from wash_fl.protocol.commands import Ask, Remind
from wash_fl.protocol.messages import Failure, Kind, Lost, Request
from wash_fl.protocol.turn import Flow, Turn

logger = logging.getLogger("flwr.wash_fl")

MOST_KILLS: Final = 3
"""ClientApps that may be killed over one request."""

LATE: Final = 30.0
"""Seconds after which an answer that needs no training is late; and between two reminders of a node."""

BETWEEN_REMINDERS: Final = 1.0
"""Seconds between the reminders of any two nodes: in a simulation all of many are late in their turn."""

REMINDER_TTL: Final = 10.0
"""Seconds that Flower keeps a reminder: an idle SuperNode asks for work every 3, a busy one is let be."""


@dataclass(frozen=True)
class _LostRequest:
    """A request that is to be sent again when its node is there, until it is no use any more."""

    request: Request
    failure: Failure
    until: float


class Requests:
    """The requests that were not answered yet, whichever round they belong to.

    A SuperNode works on one message at a time and never drops one it has begun, so a node that has not
    answered is busy: what is sent to it meanwhile would wait and grow old. It counts as free again once its
    request has expired.

    Parameters
    ----------
    turn : Turn
        The time, and where commands go.
    patience : float
        Seconds for which a request to a SuperNode that is gone waits for it to return.
    fences : dict of int to str, optional
        Those that were issued to this server before.

    Attributes
    ----------
    fences : dict of int to str
        The fencing token that each node has issued to this server.
    """

    def __init__(self, turn: Turn, patience: float = 0.0, fences: dict[int, str] | None = None) -> None:
        self.fences = {} if fences is None else fences
        self._turn = turn
        self._patience = patience
        self._numbers = itertools.count(1)
        self._out: dict[int, Request] = {}
        self._answered: dict[int, Request] = {}
        self._lost: list[_LostRequest] = []
        self._over = -1
        self._reminded: dict[int, float] = {}
        self._last_reminder = -math.inf

    def ask(self, kind: Kind, node: int, ttl: float, **fields: Any) -> Request:
        """Send a request, which is out from now on, for ``ttl`` seconds, and return it."""
        now = self._turn.now
        fence = "" if fields.get("server") else self.fences.get(node, "")
        number = next(self._numbers)
        request = Request(number, kind, node, sent=now, expires=now + ttl, fence=fence, **fields)
        self._out[request.number] = request
        self._turn.commands.append(Ask(request, left=ttl))
        return request

    def replied(self, number: int, failure: Failure | None) -> Request | None:
        """Return the request that is answered by this; None if there is none, or it is to be sent again.

        A second reply to a request of the current round finds it, too.
        """
        request = self._out.pop(number, None)
        if request is None:
            return self._answered.get(number)
        if failure is not None and self._is_lost(request, failure):
            return None
        self._answered[number] = request
        return request

    def send_again(self) -> None:
        """Send what is lost to those who are there: they answer as before, or do it now."""
        connected = self._turn.connected
        back = [each.request for each in self._lost if each.request.node in connected]
        self._lost = [each for each in self._lost if each.request.node not in connected]
        self._out |= {request.number: request for request in back}
        now = self._turn.now
        self._turn.commands += [Ask(each, again=True, left=max(1.0, each.expires - now)) for each in back]

    def given_up(self) -> list[tuple[Request, Failure]]:
        """Return what is lost and of no use any more, with why it was lost, and forget it."""
        now = self._turn.now
        over = [each for each in self._lost if each.until <= now]
        self._lost = [each for each in self._lost if each.until > now]
        return [(each.request, each.failure) for each in over]

    def expired(self) -> list[Request]:
        """Return the requests that nobody will answer any more, and forget them.

        What may be asked more often is sent once more first: a ClientApp that starved, or whose token was no
        good any more when it took the message, answers nothing.
        """
        now = self._turn.now
        gone = [request for request in self._out.values() if request.expires <= now]
        for request in gone:
            ttl = request.expires - request.sent
            if request.tries and request.node in self._turn.connected:
                again = replace(request, sent=now, expires=now + ttl, tries=request.tries - 1)
                self._out[request.number] = again
                self._turn.commands.append(Ask(again, again=True, left=ttl))
                logger.warning("%s: no answer for %.0f s; it is asked once more", request.who, ttl)
            else:
                del self._out[request.number]
        return [request for request in gone if request.number not in self._out]

    def begin_round(self) -> None:
        """Forget the requests that were answered: a reply that comes once more is of no use."""
        self._answered.clear()

    def abandon(self, number: int) -> None:
        """Repeat nothing that is lost of this round and those before it: their time is over."""
        self._over = number
        self._lost = [each for each in self._lost if each.request.round > number]

    def outstanding(self) -> list[Request]:
        """Return the requests that are out, or will be again."""
        return [*self._out.values(), *(each.request for each in self._lost)]

    def until_answered(self, requests: Iterable[Request], in_flight: int = 1 << 31) -> Flow:
        """Send requests, so many at a time, until each is answered, or nobody will answer it any more."""
        waiting = iter(requests)
        out: set[int] = set()
        while True:
            # They are sent as they are taken.
            while len(out) < in_flight and (request := next(waiting, None)) is not None:
                out.add(request.number)
            left = {each.number: each for each in self.outstanding() if each.number in out}
            if not left:
                return
            yield min(each.expires for each in left.values())
            out &= {each.number for each in self.outstanding()}

    def busy(self, node: int) -> bool:
        """Return whether a node has work outstanding."""
        return any(request.node == node for request in self.outstanding())

    def waiting(self, kind: Kind, number: int | None = None) -> list[Request]:
        """Return the requests of a kind that are out: of one round, or of any."""
        return [each for each in self.outstanding() if each.kind is kind and number in (None, each.round)]

    def reminded(self, node: int) -> bool:
        """Return whether a node answers because it was reminded: that says nothing of how long it took."""
        return self._turn.now <= self._reminded.get(node, -math.inf) + REMINDER_TTL

    def remind(self, late: Callable[[Request], float]) -> None:
        """Remind a node that is late: another each time, and not many.

        A SuperNode that has taken a message of a run which was found dead at that moment sends no answer
        before the next request comes, from then on: Flower 1.42 waits for one answer per message that it
        takes, but not for that message's, and there is one more now.

        Parameters
        ----------
        late : callable
            ``late(request)`` returns the seconds after which it is late.
        """
        now = self._turn.now
        if now < self._last_reminder + BETWEEN_REMINDERS:
            return
        due = {
            request: max(request.sent + late(request), self._reminded.get(request.node, -math.inf) + LATE)
            for request in self._out.values()
            if request.expires > now
        }
        request = min(due, key=lambda each: due[each], default=None)
        if request is None or due[request] > now:
            return
        self._reminded[request.node] = self._last_reminder = now
        logger.info("%s: no answer for %.0f s; it is reminded", request.who, now - request.sent)
        self._turn.commands.append(Remind(request))

    def _is_lost(self, request: Request, failure: Failure) -> bool:
        """Return whether a reply only says that a process died, and take note to send the request again."""
        now = self._turn.now
        if request.round and request.round <= self._over:
            return False
        if failure.lost is Lost.APP and request.kills + 1 < MOST_KILLS:
            request, until = replace(request, kills=request.kills + 1), request.expires
            what = "it is asked again"
        elif failure.lost is Lost.NODE and self._patience:
            until = min(request.expires, now + self._patience)
            what = f"it is asked again if it is back within {until - now:.0f} s"
        else:
            return False
        if until <= now:
            return False
        logger.warning("%s: %s; %s", request.who, failure.lost, what)
        self._lost.append(_LostRequest(request, failure, until))
        return True
