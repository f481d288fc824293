"""Which of a member's calls counts: the newest, for the one before may be that of a dead process."""

from typing import Generic, TypeVar

AnyCall = TypeVar("AnyCall")


class Calls(Generic[AnyCall]):
    """The members' calls, at most one each."""

    def __init__(self) -> None:
        self._newest: dict[int, AnyCall] = {}

    def admit(self, member: int, call: AnyCall) -> AnyCall | None:
        """Make this a member's call; return the call whose place it takes, if there is one."""
        before = self._newest.get(member)
        self._newest[member] = call
        return before

    def of(self, member: int) -> AnyCall | None:
        """Return a member's call; None if it has none."""
        return self._newest.get(member)

    def counts(self, member: int, call: AnyCall) -> bool:
        """Return whether what comes on a call is still the member's word.

        What an older call brings may be of a process that is dead, and its reply would go to the newer one,
        which would take it for the reply to an offer of its own.
        """
        return self._newest.get(member) is call

    def end(self, member: int, call: AnyCall) -> bool:
        """Take note that a call is over; return whether the member has none now."""
        if not self.counts(member, call):
            return False
        del self._newest[member]
        return True
