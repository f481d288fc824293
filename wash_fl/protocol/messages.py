"""What a run's server and its members tell each other: requests and their answers, replies on a stream.

Arrays are named by hash: who carries the messages has them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

EXCHANGES: Final = "exchanges"
"""The metric of a member that trained a round on the stream plane: in how many exchanges it took part."""


class Kind(StrEnum):
    """What a member is asked."""

    JOIN = "join"  # who are you, and if you hold nothing of this run, start from these weights
    TRAIN = "train"  # take the delivery of the exchange before, train a round, and offer
    COLLECT = "collect"  # take the delivery, and hand in your whole model
    DONATE = "donate"  # the same, for newcomers to start from
    RECALIBRATE = "recalibrate"  # estimate the averaged model's BatchNorm statistics over your data
    LEAVE = "leave"  # the run is over; your state may go


class Status(StrEnum):
    """How a member answers a request."""

    DONE = "done"  # I did what was asked
    NOT_JOINED = "not-joined"  # I hold no state of this run; let me join first
    REFUSED = "refused"  # I did not, for the reason given; nothing of mine has changed
    UNMET = "unmet"  # another server has met me since; ask me who I am


class ServerStatus(StrEnum):
    """What the server says on a stream; ``exchange.proto`` has a sentence for each."""

    WELCOME = "welcome"
    DELIVERED = "delivered"
    ALONE = "alone"
    LATE = "late"
    UNDELIVERED = "undelivered"
    EARLY = "early"
    REFUSED = "refused"
    ASIDE = "aside"
    DENIED = "denied"
    REPLACED = "replaced"
    ANEW = "anew"


@dataclass(frozen=True)
class Answer:
    """A member's reply to a request: nothing in it is believed yet.

    Attributes
    ----------
    status : Status
        How the member answers.
    member : int
        Its index.
    reason : str
        Why it refused; empty otherwise.
    round : int
        The last round it trained in.
    applied : int
        The last exchange whose delivery it applied.
    incarnation : int
        The number of its start.
    initial : str
        Hash of the weights it started from.
    offer : bytes
        The packet it offers; only after ``train``, and empty when nothing is exchanged.
    fence : str
        The fencing token that it issues to who asks who it is; empty otherwise.
    unreached : bool
        It refused because it did not reach the stream port, and waits for an answer there.
    """

    status: Status
    member: int
    reason: str = ""
    round: int = 0
    applied: int = 0
    incarnation: int = 0
    initial: str = ""
    offer: bytes = b""
    fence: str = ""
    unreached: bool = False


@dataclass(frozen=True)
class Failure:
    """A request that was not done.

    Attributes
    ----------
    reason : str
        Why not, on one line.
    its_own : bool
        Whether the reason is the client's own, and will be there again; otherwise it was not reached, or did
        not answer in time.
    lost : Lost or None
        That a process died over it, so that asking again may help.
    code : int
        Number of the carrier's error, for the log; 0 if it is none of its own.
    """

    reason: str
    its_own: bool
    lost: "Lost | None" = None
    code: int = 0


class Lost(StrEnum):
    """How a request can be lost, in the words of the log."""

    NODE = "its SuperNode is gone"
    APP = "its ClientApp was killed"


SILENT = Failure("no reply in time", its_own=False)


@dataclass(frozen=True, eq=False)
class ServerReply:
    """What the server says to a member on a stream.

    Attributes
    ----------
    status : ServerStatus
        The server's word.
    settled : int
        The last exchange that is settled.
    packet : bytes
        The delivery that waits for the member; empty if none does.
    reason : str
        For people.
    """

    status: ServerStatus
    settled: int
    packet: bytes = b""
    reason: str = ""


@dataclass(frozen=True)
class Start:
    """Where a member starts.

    Attributes
    ----------
    weights : str
        Hash of the weights.
    exchange : int
        The last settled exchange: no delivery up to it is for this member.
    incarnation : int
        Number of this start; a state of a lower one is replaced.
    """

    weights: str
    exchange: int = 0
    incarnation: int = 0


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of a node.

    Attributes
    ----------
    number : int
        Tells requests apart.
    kind : Kind
        What is asked.
    node : int
        Who is asked.
    sent, expires : float
        When, and when nobody waits for the answer any more, in seconds of the caller's clock.
    member : int
        Which member that is; -1 if it is not known yet.
    round : int
        The round it belongs to.
    exchange : int
        The exchange for which the answer is to offer, where it is not that of the round's number; else 0.
    delivery : bytes
        The packet that waits for the member; empty if none does. With a start, the anchor, if there is one.
    evaluate : bool
        Whether the member is to evaluate itself after training.
    start : Start or None
        Where a node that holds nothing of the run starts; None only asks who it is.
    kills : int
        ClientApps that were killed over it.
    tries : int
        How many more times it is sent if nobody answers.
    server : str
        What the server calls itself, if it asks who that is; empty otherwise.
    fence : str
        The fencing token that the node issued to this server; empty if it has none.
    """

    number: int
    kind: Kind
    node: int
    sent: float
    expires: float
    member: int = -1
    round: int = 0
    exchange: int = 0
    delivery: bytes = b""
    evaluate: bool = False
    start: Start | None = None
    kills: int = 0
    tries: int = 0
    server: str = ""
    fence: str = ""

    @property
    def who(self) -> str:
        """Who was asked, in the words of the log."""
        return f"node {self.node}" if self.member < 0 else f"member {self.member}"
