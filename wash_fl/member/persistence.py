"""A member on its disk: its snapshots, and the logs of what it exchanged between two of them."""

import logging

from wash_fl.errors import NotJoinedError, StateError
from wash_fl.member.log import Entry, Logs, caught_up
from wash_fl.member.member import Member
from wash_fl.member.parameters import Values
from wash_fl.member.snapshot import Progress, Snapshot, Store

logger = logging.getLogger("flwr.wash_fl")


class Persistence:
    """A member's store and its logs, which belong together: a snapshot names the log that goes on from it.

    Parameters
    ----------
    index : int
        The member's index.
    store : Store
        Where its snapshots are.
    logs : Logs, optional
        The logs beside them; the stream plane needs them.
    """

    def __init__(self, index: int, store: Store, logs: Logs | None = None) -> None:
        self.logs = logs
        self._index = index
        self._store = store
        self._log = ""

    def load(self) -> Snapshot | None:
        """Return the newest snapshot that is whole; None if there is none.

        Raises
        ------
        StateError
            If there are some, and none can be used.
        """
        return self._store.load()

    def needed(self) -> Snapshot:
        """Return the newest snapshot that is whole.

        Raises
        ------
        NotJoinedError
            If there is none.
        StateError
            If there are some, and none can be used.
        """
        snapshot = self._store.load()
        if snapshot is None:
            raise NotJoinedError(f"member {self._index} holds no state of this run: let it join first.")
        return snapshot

    def replaceable(self, incarnation: int) -> Snapshot | None:
        """Return the snapshot that a start may replace; None if there is none, or none that can be used.

        Parameters
        ----------
        incarnation : int
            Number of the start; the first, 0, replaces nothing that is damaged.
        """
        try:
            return self._store.load()
        except StateError as error:
            if not incarnation:
                raise
            # It is to be replaced: whatever is wrong with it does not matter.
            logger.warning("member %d starts anew, and loses its state: %s", self._index, error)
            return None

    def restore(
        self, snapshot: Snapshot, member: Member, *, anchored: bool
    ) -> tuple[Progress, Values | None]:
        """Make a member what it was, with what it exchanged since; return how far it is, and its offer.

        Parameters
        ----------
        snapshot : Snapshot
            As it was loaded.
        member : Member
            Its weights, its optimizer's state and its anchor are replaced.
        anchored : bool
            Whether the members of the run have an anchor.

        Raises
        ------
        StateError
            If the snapshot does not fit the member, or its log cannot be read.
        """
        self._log = snapshot.progress.log
        entries: list[Entry] = []
        if self.logs is not None:
            snapshot, entries = caught_up(snapshot, self.logs)
        snapshot.restore(member)
        if (member.anchor is None) == anchored:
            raise StateError(f"{snapshot.source} is not of this run: an anchor is missing, or one too many.")
        for entry in entries:
            if entry.held is not None:
                member.hold(entry.exchange, entry.held)
            if member.anchor is not None:
                entry.move(member.anchor, member.draw.coordinates(entry.exchange))
        return snapshot.progress, snapshot.offer

    def save(self, snapshot: Snapshot, *, anew: bool = False) -> None:
        """Keep a snapshot, and the logs of this one and the one before.

        Parameters
        ----------
        snapshot : Snapshot
            What is to be kept.
        anew : bool
            Whether no older one may be gone back to.

        Raises
        ------
        StateError
            If it cannot be written.
        """
        self._store.save(snapshot, anew=anew)
        if self.logs is not None and snapshot.progress.log:
            self.logs.forget({snapshot.progress.log, self._log})
            self._log = snapshot.progress.log
