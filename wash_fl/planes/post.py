"""Requests that are out: what was sent to whom, what came back, and who has not answered yet.

Every request may be repeated, for members answer a repeated one as they did the first. So what is lost
because a process died is asked once more, here, and only answers that are final are handed out.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from flwr.app import Message
from flwr.serverapp import Grid

from wash_fl.planes import records
from wash_fl.planes.asking import ERRORS, GONE, KILLED, pull
from wash_fl.planes.clock import Clock, Pause

logger = logging.getLogger("flwr.wash_fl")

MOST_KILLS = 3
"""ClientApps that may be killed over one request."""

LATE = 30.0
"""Seconds after which an answer that needs no training is late; and between two reminders of a node."""

BETWEEN_REMINDERS = 1.0
"""Seconds between the reminders of any two nodes: in a simulation all of many are late in their turn."""

REMINDER_TTL = 10.0
"""Seconds that Flower keeps a reminder: an idle SuperNode asks for work every 3, a busy one is let be."""

Late = Callable[[int], float]


def never(member: int) -> float:
    """Return that nobody is late."""
    del member
    return math.inf


@dataclass(frozen=True, eq=False)
class Errand:
    """A request on its way.

    Attributes
    ----------
    node : int
        Who was asked.
    member : int
        Which member that is; -1 if it is not known yet.
    round : int
        The round it belongs to.
    request : Message
        What was asked.
    sent, expires : float
        When, and when its answer is no longer accepted by Flower, in seconds of the clock.
    kills : int
        ClientApps that were killed over it.
    """

    node: int
    member: int
    round: int
    request: Message
    sent: float
    expires: float
    kills: int = 0

    @property
    def kind(self) -> str:
        """The request's message type."""
        return self.request.metadata.message_type

    @property
    def who(self) -> str:
        """Who was asked, in the words of the log."""
        return f"node {self.node}" if self.member < 0 else f"member {self.member}"


@dataclass(frozen=True)
class _Lost:
    """A request that is to be sent again when its node is there, until it is no use any more."""

    errand: Errand
    reply: Message
    until: float


class Post:
    """Sends requests and takes replies, whichever round they belong to.

    A SuperNode works on one message at a time and never drops one it has begun, so a node that has not
    answered is busy: what is sent to it meanwhile would wait and grow old. It counts as free again once its
    request has expired.

    Parameters
    ----------
    grid : Grid
        Flower's way to the nodes.
    clock : Clock
        What waiting is measured by.
    patience : float
        Seconds for which a request to a SuperNode that is gone waits for it to return.
    extra : callable
        ``extra(member, request)`` is told of each request that no caller has sent, if it is known which
        member it goes to: repeated ones, and reminders.
    """

    def __init__(
        self,
        grid: Grid,
        clock: Clock,
        *,
        patience: float = 0.0,
        extra: Callable[[int, Message], None] = lambda member, request: None,
    ) -> None:
        self._grid = grid
        self._clock = clock
        self._patience = patience
        self._extra = extra
        self._out: dict[str, Errand] = {}
        self._lost: list[_Lost] = []
        self._over = -1
        self._reminded: dict[int, float] = {}
        self._last_reminder = -math.inf

    def send(self, requests: Iterable[tuple[int, int, Message]], number: int) -> list[Errand]:
        """Send requests, each given as (member, node, message), and return those that went out."""
        now = self._clock.now()
        return self._push(
            [
                Errand(node, member, number, message, now, now + message.metadata.ttl)
                for member, node, message in requests
            ]
        )

    def replies(self, late: Late = never) -> Iterator[tuple[Errand, Message]]:
        """Yield what has come back; a reply that came twice is yielded twice.

        Parameters
        ----------
        late : callable
            ``late(member)`` returns the seconds after which it is reminded if it has not answered.
        """
        self._send_again()
        came = pull(self._grid, list(self._out))
        answered: dict[str, Errand] = {}
        for reply in came:
            # A failed node's reply says only which message it is about.
            asked = reply.metadata.reply_to_message_id
            errand = self._out.pop(asked, None) or answered.get(asked)
            if errand is not None and not self._is_lost(errand, reply):
                answered[asked] = errand
                yield errand, reply
        now = self._clock.now()
        given_up = [each for each in self._lost if each.until <= now]
        self._lost = [each for each in self._lost if each.until > now]
        for each in given_up:
            yield each.errand, each.reply
        self._remind(late)

    def ask(
        self, requests: Iterable[tuple[int, int, Message]], in_flight: int
    ) -> Iterator[tuple[Errand, Message | None]]:
        """Send requests, ``in_flight`` at a time, and yield each answer as it comes; None if it did not.

        Answers of the size of a model must not pile up at the server: an answer is yielded, and forgotten
        here, before the next request is sent. What else is out is not touched.
        """
        own = Post(self._grid, self._clock, patience=self._patience, extra=self._extra)
        waiting = list(requests)
        pause = Pause(self._clock)
        while waiting or own.outstanding():
            while waiting and len(own.outstanding()) < in_flight:
                member, node, message = waiting.pop(0)
                if not own.send([(member, node, message)], 0):
                    now = self._clock.now()
                    yield Errand(node, member, 0, message, now, now), None
            seen: set[tuple[int, int]] = set()
            for errand, reply in own.replies(lambda member: LATE):
                if (errand.member, errand.node) not in seen:
                    seen.add((errand.member, errand.node))
                    yield errand, reply
            for errand in own.expired():
                yield errand, None
            if seen:
                pause.reset()
            elif left := own.outstanding():
                pause.wait(min(errand.expires for errand in left))

    def expired(self) -> list[Errand]:
        """Return the requests that nobody will answer any more, and forget them."""
        now = self._clock.now()
        gone = [message_id for message_id, errand in self._out.items() if errand.expires <= now]
        return [self._out.pop(message_id) for message_id in gone]

    def abandon(self, number: int) -> None:
        """Repeat nothing that is lost of this round and those before it: their time is over."""
        self._over = number
        self._lost = [each for each in self._lost if each.errand.round > number]

    def outstanding(self) -> list[Errand]:
        """Return the requests that are out, or will be again."""
        return [*self._out.values(), *(each.errand for each in self._lost)]

    def busy(self, node: int) -> bool:
        """Whether a node has work outstanding."""
        return any(errand.node == node for errand in self.outstanding())

    def reminded(self, node: int) -> bool:
        """Whether what a node answers now is due to a reminder: it says nothing of how long it took."""
        return self._clock.now() <= self._reminded.get(node, -math.inf) + REMINDER_TTL

    def waiting(self, kind: str, number: int | None = None) -> list[Errand]:
        """Return the requests of a kind that are out: of one round, or of any."""
        return [
            errand for errand in self.outstanding() if errand.kind == kind and number in (None, errand.round)
        ]

    def _push(self, errands: list[Errand]) -> list[Errand]:
        if not errands:
            return []
        # A list, for a deployment's grid iterates twice.
        ids = list(self._grid.push_messages([errand.request for errand in errands]))
        sent = []
        for message_id, errand in zip(ids, errands, strict=False):
            if message_id:  # Flower returns none for a message that it could not take
                self._out[message_id] = errand
                sent.append(errand)
        return sent

    def _is_lost(self, errand: Errand, reply: Message) -> bool:
        """Return whether a reply only says that a process died, and have the request sent again then."""
        code = reply.error.code if reply.has_error() and errand.round > self._over else 0
        now = self._clock.now()
        if code == KILLED and errand.kills + 1 < MOST_KILLS:
            errand, until = replace(errand, kills=errand.kills + 1), errand.expires
            what = "it is asked again"
        elif code == GONE and self._patience:
            until = min(errand.expires, now + self._patience)
            what = f"it is asked again if it is back within {until - now:.0f} s"
        else:
            return False
        if until <= now:
            return False
        logger.warning("%s: %s; %s", errand.who, ERRORS[code], what)
        self._lost.append(_Lost(errand, reply, until))
        return True

    def _send_again(self) -> None:
        """Repeat what is lost to those who are there: they answer as before, or do it now."""
        if not self._lost:
            return
        connected = set(self._grid.get_node_ids())
        back = [each for each in self._lost if each.errand.node in connected]
        self._lost = [each for each in self._lost if each.errand.node not in connected]
        for errand in (each.errand for each in back):
            left = max(1.0, errand.expires - self._clock.now())
            request = Message(errand.request.content, errand.node, errand.kind, ttl=left)
            for again in self._push([replace(errand, request=request)]):
                self._sent_too(again, request)

    def _remind(self, late: Late) -> None:
        """Send a reminder to a node that is late: to another each time, and not many.

        A SuperNode that has taken a message of a run which was found dead at that moment sends no answer
        before the next request comes, from then on: Flower 1.42 waits for one answer per message that it
        takes, but not for that message's, and there is one more now.
        """
        now = self._clock.now()
        if now < self._last_reminder + BETWEEN_REMINDERS:
            return
        due = {
            errand: max(errand.sent + late(errand.member), self._reminded.get(errand.node, -math.inf) + LATE)
            for errand in self._out.values()
            if errand.expires > now
        }
        errand = min(due, key=lambda each: due[each], default=None)
        if errand is None or due[errand] > now:
            return
        self._reminded[errand.node] = self._last_reminder = now
        reminder = records.request(errand.node, records.REMIND, {}, REMINDER_TTL)
        if any(self._grid.push_messages([reminder])):
            logger.info("%s: no answer for %.0f s; it is reminded", errand.who, now - errand.sent)
            self._sent_too(errand, reminder)

    def _sent_too(self, errand: Errand, request: Message) -> None:
        if errand.member >= 0:
            self._extra(errand.member, request)
