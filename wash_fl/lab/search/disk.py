"""A member's disk: the last snapshot and the one before, as in :mod:`wash_fl.member.state`, in memory."""

from collections.abc import Callable

from wash_fl.errors import StateError
from wash_fl.lab.search.moments import Fuse
from wash_fl.member.fence import Fence
from wash_fl.member.snapshot import Snapshot


class Disk:
    """A :class:`~wash_fl.member.snapshot.Store` whose writer can be killed between any two writes.

    Parameters
    ----------
    fuse : Fuse
        The member's.
    saved : callable
        Called once a snapshot is there.

    Attributes
    ----------
    current, previous : Snapshot or None
        What the two files hold.
    changes : int
        How often that changed.
    """

    def __init__(self, fuse: Fuse, saved: Callable[[], None] = lambda: None) -> None:
        self._fuse = fuse
        self._saved = saved
        self.current: Snapshot | None = None
        self.previous: Snapshot | None = None
        self.changes = 0
        self._bad: list[Snapshot] = []
        self._fence: Fence | None = None

    def whole(self) -> Snapshot | None:
        """Return what a reader finds; None if there is nothing, or nothing whole."""
        return next((each for each in self._kept() if not self._is_bad(each)), None)

    @property
    def readable(self) -> bool:
        """Whether a reader finds something whole, or nothing at all."""
        return not self._kept() or self.whole() is not None

    def load(self) -> Snapshot | None:
        """Return the last snapshot that is whole; None if there is none at all."""
        found = self.whole()
        if found is None and self._kept():
            raise StateError("the state is damaged, and so is the one before: move it away.")
        return found

    def save(self, snapshot: Snapshot, *, anew: bool = False) -> None:
        """Keep a snapshot as the real store does: beside, then one name after the other."""
        self._fuse.burn("before writing its state")
        # A torn file under a name that nobody reads.
        self._fuse.burn("while writing its state")
        self.changes += 1
        if anew:
            self.previous = None
        elif self.current is not None and not self._is_bad(self.current):
            self.previous, self.current = self.current, None
        self._fuse.burn("between two renames")
        self.current = snapshot
        self.changes += 1
        self._saved()
        self._fuse.burn("after writing its state")

    def remove(self) -> None:
        """Keep nothing."""
        self.current = self.previous = self._fence = None
        self.changes += 1

    def fence(self) -> Fence | None:
        """Return which server the member answers to."""
        return self._fence

    def keep_fence(self, fence: Fence) -> None:
        """Keep which server the member answers to: a file so small that it is written at once, or not."""
        self._fence = fence

    def rot(self) -> None:
        """Damage the newest snapshot that is whole: a disk that lied, a bit that flipped."""
        found = self.whole()
        if found is not None:
            self._bad.append(found)
            self.changes += 1

    def _is_bad(self, snapshot: Snapshot) -> bool:
        return any(each is snapshot for each in self._bad)

    def _kept(self) -> list[Snapshot]:
        return [each for each in (self.current, self.previous) if each is not None]
