"""Who an exchange on the stream plane waits for, and how long: members differ in speed, and some are gone.

An exchange begins with its first offer. It is due as soon as nobody is awaited any more. A member is awaited
if it can be expected before the deadline, judging by how long it worked before its last offer: a slow device
then never holds a fast one back, and devices of one speed always meet. With a deadline that is longer than
any member works, all of them take part in every exchange, in lock-step.

The clock is the caller's: all times are given, in seconds.
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass
class _Caller:
    """A member of the round.

    Attributes
    ----------
    connected : bool
        Whether it has a call open.
    told : float
        When it was last answered, and so began to work.
    work : float or None
        How long it worked before its last offer; None if it has not offered yet.
    lapsed : bool
        It missed a deadline, and has not offered since.
    done : bool
        It has ended its round.
    """

    connected: bool = False
    told: float = 0.0
    work: float | None = None
    lapsed: bool = False
    done: bool = False


class Quorum:
    """The members of a round, and which of them the open exchange waits for.

    Parameters
    ----------
    deadline : float
        Seconds after the first offer when an exchange no longer waits for anybody.
    patience : float
        Seconds after the round began in which members that have not called yet are awaited.
    """

    def __init__(self, deadline: float, patience: float) -> None:
        self._deadline = deadline
        self._patience = patience
        self._began = 0.0
        self._callers: dict[int, _Caller] = {}
        self._offered: set[int] = set()
        self._first = 0.0

    def begin(self, members: Collection[int], now: float) -> None:
        """Begin a round among ``members``; what is known of their speed is kept."""
        before = self._callers
        # Who is still in an earlier round, and has offered for the open exchange, takes part in it.
        self._callers = {member: before[member] for member in self._offered}
        for member in members:
            known = before.get(member, _Caller())
            # Its first offer has a whole start of a training process before it, not a few steps.
            self._callers[member] = _Caller(known.connected and not known.done, now, known.work)
        self._began = now

    def end(self) -> None:
        """End the round: nobody is awaited."""
        for caller in self._callers.values():
            caller.done = True

    def called(self, member: int, now: float) -> None:
        """Take note that a member called, and now works."""
        caller = self._callers.setdefault(member, _Caller())
        caller.connected, caller.done = True, False
        if member not in self._offered:
            caller.told = now

    def lost(self, member: int) -> None:
        """Take note that a member's call is broken; it is awaited all the same, for it will call again."""
        if member in self._callers:
            self._callers[member].connected = False

    def left(self, member: int) -> None:
        """Take note that a member has ended its round, or is not a member any more."""
        if member in self._callers:
            self._callers[member].connected, self._callers[member].done = False, True

    def offered(self, member: int, now: float) -> None:
        """Take note of an offer that takes part in the open exchange."""
        caller = self._callers.setdefault(member, _Caller(connected=True, told=now))
        if not self._offered:
            self._first = now
        if member not in self._offered:
            caller.work = now - caller.told
        caller.lapsed = False
        self._offered.add(member)

    def told(self, member: int, now: float) -> None:
        """Take note that a member was answered otherwise than by a settled exchange, and works again."""
        if member in self._callers:
            self._callers[member].told = now

    def due(self) -> float | None:
        """Return when the open exchange is to be settled; None if there is none."""
        if not self._offered:
            return None
        return max((until for until in map(self._awaited_until, self._callers) if until), default=self._first)

    def awaited(self) -> list[int]:
        """Return the members that the open exchange still waits for, if their time is not up."""
        return [member for member in sorted(self._callers) if self._awaited_until(member)]

    def settled(self, now: float) -> list[int]:
        """Close the exchange at its time; return the members that were awaited and did not come."""
        missing = self.awaited()
        for member in missing:
            self._callers[member].lapsed = True
        for member in self._offered:
            self._callers[member].told = now
        self._offered.clear()
        return missing

    def _awaited_until(self, member: int) -> float | None:
        """Return until when the open exchange waits for a member; None if it does not."""
        caller = self._callers[member]
        if caller.done or caller.lapsed or member in self._offered:
            return None
        if not caller.connected and caller.work is None:
            return max(self._first + self._deadline, self._began + self._patience)
        limit = self._first + self._deadline
        if caller.work is not None and caller.told + caller.work > limit:
            return None
        return limit
