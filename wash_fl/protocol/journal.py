"""Where the escrow writes down what it decided, before anyone hears of it.

Besides the decisions a journal keeps what the server knows of each member, so that a server that died goes
on from its journal alone. What is written when, and what goes then, is decided here, whatever it is kept in.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from wash_fl.protocol.journal_rows import (
    DELIVERIES,
    ENROLMENTS,
    HEAD,
    HEAD_KEY,
    MOVES,
    RECORDS,
    VECTORS,
    AnchorChange,
    Delivery,
    Enrolment,
    Head,
    Moved,
    Record,
    Standing,
    Values,
    Vector,
)
from wash_fl.protocol.store import MemoryStore, Store

NOTHING: Final[Mapping[int, int]] = MappingProxyType({})


class Journal:
    """A record of settled exchanges, of deliveries that are not acknowledged, and of the members.

    Every method that writes does so as a whole or not at all, and has done so when it returns. A member has
    at most one delivery.

    Parameters
    ----------
    store : Store
        What it is kept in; it belongs to this object.
    records : bool
        Whether it keeps a record of each exchange, for an audit. Hashing every slice for it takes longer than
        all else about an exchange.
    lasts : bool
        Whether anybody may restore from it what is in the server's memory anyway: an anchor is as large as
        the model.
    """

    def __init__(self, store: Store, *, records: bool = True, lasts: bool = True) -> None:
        self.lasts = lasts
        self._store = store
        self._records = records
        # What the rules ask for, so that no decision has to read slices again.
        self._waiting = {member: delivery.exchange for member, delivery in store.rows(DELIVERIES)}
        self._enrolments = dict(store.rows(ENROLMENTS))
        begun = dict(store.rows(HEAD))
        self._head = begun.get(HEAD_KEY) or Head.first()
        if not begun:
            with store.transaction("a beginning"):
                store.put(HEAD, HEAD_KEY, self._head)

    @classmethod
    def in_memory(cls) -> "Journal":
        """Return a journal that lives as long as the process; nobody audits it after that."""
        return cls(MemoryStore(), records=False, lasts=False)

    @property
    def secret(self) -> bytes:
        """Drawn at random when the journal began; what members prove themselves by is made from it."""
        return self._head.secret

    @property
    def rounds(self) -> int:
        """Rounds that have ended, on the stream plane; on the round plane they are the settled exchanges."""
        return self._head.rounds

    # What is written

    def settled(
        self,
        exchange: int,
        deliveries: Mapping[int, Delivery],
        offers: Mapping[int, Values],
        acknowledged: Mapping[int, int] = NOTHING,
        change: AnchorChange | None = None,
    ) -> None:
        """Record a settled exchange: its number, its deliveries by member, and who offered what.

        With it are recorded the acknowledgements that came since the last one, by member: the exchange up to
        which it needs no delivery. Where there is an anchor, ``change`` is what becomes of its rows, and has
        the values of all deliveries, which are the same.
        """
        record = Record.of(exchange, deliveries, offers) if self._records else None
        with self._transaction("a settled exchange"):
            for member, applied in acknowledged.items():
                self._drop_delivery(member, applied)
            for member, delivery in deliveries.items():
                hashed = replace(delivery, digest=record.deliveries[member]) if record else delivery
                self._put_delivery(member, hashed if change is None else delivery.without_values())
            if change is not None and self.lasts:
                self._change_anchor(change)
            if record:
                self._store.put(RECORDS, exchange, record)
            for member in self._enrolments.keys() & (acknowledged.keys() | offers.keys()):
                known = self._enrolments[member]
                seen = exchange if member in offers else known.seen
                applied = max(known.applied, acknowledged.get(member, 0))
                self._put_enrolment(member, replace(known, seen=seen, applied=applied))
            self._put_head(replace(self._head, settled=exchange))

    def anchored(self, vectors: Iterable[tuple[int, Vector]]) -> None:
        """Record the anchor that a run begins with."""
        with self._transaction("an anchor"):
            self._change_anchor(AnchorChange(vectors=vectors))

    def ended(self, number: int) -> None:
        """Record that a round has ended."""
        with self._transaction("the end of a round"):
            self._put_head(replace(self._head, rounds=number))

    def acknowledged(self, member: int, applied: int) -> None:
        """Record that a member applied the delivery of exchange ``applied``: it needs none up to that."""
        with self._transaction("an acknowledgement"):
            self._drop_delivery(member, applied)
            known = self._enrolments.get(member)
            if known is not None and known.applied < applied:
                self._put_enrolment(member, replace(known, applied=applied))

    def released(self, member: int) -> None:
        """Drop a member's delivery for good: it was given up or set aside, or joins anew."""
        with self._transaction("a release"):
            self._drop_delivery(member)

    def enrolled(self, member: int, enrolment: Enrolment) -> None:
        """Record what is known of a member, in place of what was.

        A delivery that the enrolment leaves no use for goes with it: one of an exchange up to ``applied``,
        or any if the member does not count any more.
        """
        with self._transaction("an enrolment"):
            self._put_enrolment(member, enrolment)
            counts = enrolment.standing is Standing.ACTIVE
            self._drop_delivery(member, enrolment.applied if counts else None)

    # What is read

    def restore(self) -> tuple[int, dict[int, Delivery]]:
        """Return the last settled exchange (0 if none) and the deliveries not acknowledged, by member."""
        return self._head.settled, dict(self._store.rows(DELIVERIES))

    def enrolments(self) -> dict[int, Enrolment]:
        """Return what is known of the members, by member."""
        return dict(self._store.rows(ENROLMENTS))

    def applied(self, member: int) -> int:
        """Return the last exchange up to which a member is on record as needing nothing; 0 if it is not."""
        known = self._enrolments.get(member)
        return 0 if known is None else known.applied

    def active(self) -> list[int]:
        """Return the members that count."""
        return [member for member, each in self._enrolments.items() if each.standing is Standing.ACTIVE]

    def vectors(self) -> Iterator[tuple[int, Vector]]:
        """Return the anchor and what goes with it, as they were written down last; nothing without one."""
        return self._store.rows(VECTORS)

    def moves(self) -> Iterator[Moved]:
        """Return by how much exchanges have moved the anchor, in order, of those that somebody needs."""
        return (moved for _, moved in self._store.rows(MOVES))

    def records(self) -> Iterator[Record]:
        """Return the settled exchanges in order, if they are kept."""
        return (record for _, record in self._store.rows(RECORDS))

    def close(self) -> None:
        """Let go of what the journal holds; it is not used after that."""
        self._store.close()

    # Rows

    def _change_anchor(self, change: AnchorChange) -> None:
        for key, vector in change.vectors or ():
            self._store.put(VECTORS, key, vector)
        for exchange in change.forget:
            self._store.delete(MOVES, exchange)
        if change.moved is not None:
            self._store.put(MOVES, change.moved.exchange, change.moved)

    @contextmanager
    def _transaction(self, event: str) -> Iterator[None]:
        before = self._head, dict(self._waiting), dict(self._enrolments)
        try:
            with self._store.transaction(event):
                yield
        except BaseException:
            self._head, self._waiting, self._enrolments = before
            raise

    def _put_delivery(self, member: int, delivery: Delivery) -> None:
        assert member not in self._waiting, "a delivery would replace one that waits"
        self._store.put(DELIVERIES, member, delivery)
        self._waiting[member] = delivery.exchange

    def _drop_delivery(self, member: int, up_to: int | None = None) -> None:
        if member in self._waiting and (up_to is None or self._waiting[member] <= up_to):
            self._store.delete(DELIVERIES, member)
            del self._waiting[member]

    def _put_enrolment(self, member: int, enrolment: Enrolment) -> None:
        self._store.put(ENROLMENTS, member, enrolment)
        self._enrolments[member] = enrolment

    def _put_head(self, head: Head) -> None:
        self._store.put(HEAD, HEAD_KEY, head)
        self._head = head
