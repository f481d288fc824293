"""Requests that are out: what was sent to whom, what came back, and who has not answered yet."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from wash_fl.planes.asking import pull
from wash_fl.planes.clock import Clock


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
    """

    node: int
    member: int
    round: int
    request: Message
    sent: float
    expires: float

    @property
    def kind(self) -> str:
        """The request's message type."""
        return self.request.metadata.message_type


class Post:
    """Sends requests and takes replies, whichever round they belong to.

    A SuperNode works on one message at a time and never drops one it has begun, so a node that has not
    answered is busy: what is sent to it meanwhile would wait and grow old. It counts as free again once its
    request has expired.
    """

    def __init__(self, grid: Grid, clock: Clock) -> None:
        self._grid = grid
        self._clock = clock
        self._out: dict[str, Errand] = {}

    def send(self, requests: Iterable[tuple[int, int, Message]], number: int) -> list[Errand]:
        """Send requests, each given as (member, node, message), and return those that went out."""
        # A list, for a deployment's grid iterates twice.
        listed = list(requests)
        if not listed:
            return []
        now = self._clock.now()
        ids = list(self._grid.push_messages([message for _, _, message in listed]))
        sent = []
        for message_id, (member, node, message) in zip(ids, listed, strict=False):
            if message_id:  # Flower returns none for a message that it could not take
                errand = Errand(node, member, number, message, now, now + message.metadata.ttl)
                self._out[message_id] = errand
                sent.append(errand)
        return sent

    def replies(self) -> Iterator[tuple[Errand, Message]]:
        """Yield what has come back; a reply that came twice is yielded twice."""
        came = pull(self._grid, list(self._out))
        answered: dict[str, Errand] = {}
        for reply in came:
            # A failed node's reply says only which message it is about.
            asked = reply.metadata.reply_to_message_id
            errand = self._out.pop(asked, None) or answered.get(asked)
            if errand is not None:
                answered[asked] = errand
                yield errand, reply

    def expired(self) -> list[Errand]:
        """Return the requests that nobody will answer any more, and forget them."""
        now = self._clock.now()
        gone = [message_id for message_id, errand in self._out.items() if errand.expires <= now]
        return [self._out.pop(message_id) for message_id in gone]

    def busy(self, node: int) -> bool:
        """Whether a node has work outstanding."""
        return any(errand.node == node for errand in self._out.values())

    def waiting(self, kind: str, number: int | None = None) -> list[Errand]:
        """Return the requests of a kind that are out: of one round, or of any."""
        return [
            errand for errand in self._out.values() if errand.kind == kind and number in (None, errand.round)
        ]
