"""One fault: what goes wrong, to whom and in which exchange, as an object and as text."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

from wash_fl.errors import ConfigError


class Kind(StrEnum):
    """What goes wrong."""

    DROP = "drop"  # the message is lost
    DELAY = "delay"  # it comes some rounds later
    DUPLICATE = "duplicate"  # it comes twice
    REORDER = "reorder"  # the message after it overtakes it
    CORRUPT = "corrupt"  # one bit of the packet in it is flipped
    KILL = "kill"  # the process dies at a named point, as by SIGKILL
    PAUSE = "pause"  # the process stands still at a named point, for some seconds
    CUT = "cut"  # the member's stream breaks at a named point


class Way(StrEnum):
    """Which of a member's messages is hit."""

    REQUEST = "request"
    REPLY = "reply"


NETWORK: Final = (Kind.DROP, Kind.DELAY, Kind.DUPLICATE, Kind.REORDER, Kind.CORRUPT)
"""The kinds that happen to messages."""

AT_POINTS: Final = (Kind.KILL, Kind.PAUSE, Kind.CUT)
"""The kinds that happen to a process at a point."""

STREAM_POINTS: Final = ("offering", "sent", "delivered", "applied")
"""Where a member's stream can be cut: before it sends an offer; after it has; before it applies a delivery;
after it has, before it acknowledges it with the next offer."""

ROUND_POINTS: Final = ("asked", "trained", "saved")
"""Before a member looks at a request; after training, before it saves; after it saved, before it replies."""

MEMBER_POINTS: Final = (*ROUND_POINTS, *STREAM_POINTS)
"""Where a member can be killed or paused."""

SERVER_POINTS: Final = ("sent", "offered", "settled", "collected", "averaged")
"""Where a server can be killed: after a round's requests are out; after its first offer was taken; after the
exchange is in the journal; after the first member's model was added; after all of them were averaged."""

REQUESTS: Final = ("train", "join", "collect", "recalibrate", "leave")
"""Whose messages can be hit."""

ALWAYS: Final = 0
"""``times`` of a fault that never stops."""

_HINT = "Write for example: drop reply member=1 exchange=3; kill server exchange=3 at=settled."


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes
    ----------
    kind : Kind
        What goes wrong.
    member : int or None
        Whose message or process is hit; None: the server, which can only be killed.
    exchange : int or None
        In which exchange; None: in whichever comes first.
    way : Way or None
        The request to the member, or its reply; None if it is killed.
    at : str
        The point at which a process is killed, of ``MEMBER_POINTS`` or ``SERVER_POINTS``.
    of : str
        Which request's messages are hit, of ``REQUESTS``.
    by : int
        Rounds by which a message is delayed; seconds for which a process stands still.
    times : int
        How often the fault happens; ``ALWAYS``: every time.
    """

    kind: Kind
    member: int | None = None
    exchange: int | None = None
    way: Way | None = None
    at: str = ""
    of: str = "train"
    by: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        if self.kind in AT_POINTS:
            self._check_point()
        else:
            self._check_message()
        for name in ("by", "exchange"):
            value = getattr(self, name)
            if value is not None and value < 1:
                refuse(f"{name}={value} in {self}", f"{name} is 1 or more")
        if self.times < 0 or (self.member is not None and self.member < 0):
            refuse(f"a negative number in {self}", "member and times are 0 or more")

    def __str__(self) -> str:
        """Return the fault as it is written in a plan; what is at its default is left out."""
        words = [str(self.kind)]
        if self.way is not None:
            words.append(str(self.way))
        words.append("server" if self.member is None else f"member={self.member}")
        if self.exchange is not None:
            words.append(f"exchange={self.exchange}")
        if self.at:
            words.append(f"at={self.at}")
        if self.of != "train":
            words.append(f"of={self.of}")
        if self.by != 1:
            words.append(f"by={self.by}")
        if self.times != 1:
            words.append(f"times={self.times or 'always'}")
        return " ".join(words)

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read one fault.

        Raises
        ------
        ConfigError
            If it is not one; the message says which word is wrong and what is allowed.
        """
        words = text.split()
        if not words or words[0] not in list(Kind):
            refuse(f"the fault {text.strip()!r}", f"a fault begins with one of {', '.join(Kind)}")
        fields: dict[str, str | int | None] = {}
        way: Way | None = None
        server = False
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if word in list(Way) and way is None:
                way = Way(word)
            elif word == "server" and not server:
                server = True
            elif equals and name in {"at", "of"} and value and name not in fields:
                fields[name] = value
            elif equals and name in {"member", "exchange", "by", "times"} and name not in fields:
                fields[name] = _number(name, value, text)
            else:
                refuse(
                    f"the word {word!r} in {text.strip()!r}",
                    "request, reply, server, member=, exchange=, at=, of=, by=, times= may follow, each once",
                )
        if server == ("member" in fields):
            refuse(f"the fault {text.strip()!r}", "it names either member=<index> or server")
        return cls(Kind(words[0]), way=way, **fields)  # type: ignore[arg-type]

    def _check_point(self) -> None:
        points: tuple[str, ...] = SERVER_POINTS if self.member is None else MEMBER_POINTS
        points = STREAM_POINTS if self.kind is Kind.CUT else points
        if self.at not in points or (self.kind is Kind.CUT and self.member is None):
            who = "the server" if self.member is None else "a member"
            effect = {Kind.KILL: "killed", Kind.PAUSE: "paused", Kind.CUT: "cut off"}[self.kind]
            refuse(f"at={self.at} in {self}", f"{who} is {effect} at one of {', '.join(points)}")
        if self.way is not None or self.of != "train" or (self.by != 1 and self.kind is not Kind.PAUSE):
            refuse(f"the fault '{self}'", f"{self.kind} takes member= or server, exchange=, at= and times=")

    def _check_message(self) -> None:
        if self.member is None or self.way is None:
            refuse(f"the fault '{self}'", f"{self.kind} hits the request or the reply of a member")
        if self.at:
            refuse(f"at={self.at} in {self}", "only kill, pause and cut have a point")
        if self.of not in REQUESTS:
            refuse(f"of={self.of} in {self}", f"of is one of {', '.join(REQUESTS)}")
        if self.of != "train" and (self.exchange is not None or self.kind in {Kind.DELAY, Kind.REORDER}):
            refuse(f"the fault '{self}'", "only messages of train have an exchange, or come rounds later")
        if self.by != 1 and self.kind is not Kind.DELAY:
            refuse(f"by={self.by} in {self}", "only delay and pause have by")


def _number(name: str, value: str, text: str) -> int:
    if name == "times" and value == "always":
        return ALWAYS
    if not (value.isascii() and value.isdigit()) or (name == "times" and int(value) == 0):
        refuse(f"{name}={value} in {text.strip()!r}", f"{name} is a whole number, times also 'always'")
    return int(value)


def refuse(what: str, allowed: str) -> NoReturn:
    """Say what cannot be injected, what can, and how it is written."""
    raise ConfigError(f"{what} cannot be injected: {allowed}. {_HINT}")
