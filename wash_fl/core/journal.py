"""Where the escrow writes down what it decided, before anyone hears of it.

Besides the decisions a journal keeps what the server knows of each member, so that a server that died goes
on from its journal alone.
"""

import hashlib
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]

SECRET_BYTES: Final = 32


class Standing(StrEnum):
    """Whether a member counts."""

    ACTIVE = "active"  # it takes part, and is in the average
    GIVEN_UP = "given-up"  # it was away for too long; it may join anew
    SET_ASIDE = "set-aside"  # its values are not to be trusted


@dataclass(frozen=True, eq=False)
class Delivery:
    """What a member receives for its offer, until it is acknowledged.

    Attributes
    ----------
    exchange : int
        Number of the exchange it settles.
    values : ndarray of float32, shape (slots, count)
        The member's new values at the coordinates of that exchange.
    """

    exchange: int
    values: Values


@dataclass(frozen=True)
class Enrolment:
    """What the server remembers of a member.

    Attributes
    ----------
    initial : str
        Hash of the weights it started from.
    incarnation : int
        How often it was given the weights of another member to start from: 0 as long as it goes on from the
        run's initial ones.
    joined : int
        The exchange after which it joined; 0 is the beginning.
    seen : int
        The last exchange in which it offered.
    applied : int
        The last exchange whose delivery it acknowledged.
    standing : Standing
        Whether it counts.
    reason : str
        Why, if it does not.
    """

    initial: str
    incarnation: int = 0
    joined: int = 0
    seen: int = 0
    applied: int = 0
    standing: Standing = Standing.ACTIVE
    reason: str = ""


@dataclass(frozen=True)
class Record:
    """A settled exchange as a later audit needs it: who gave what, and who was to receive what.

    Attributes
    ----------
    exchange : int
        Its number.
    offers, deliveries : dict of int to str
        Per member, :func:`values_hash` of what was mixed and of what came out; no deliveries if fewer than
        two members offered.
    """

    exchange: int
    offers: dict[int, str]
    deliveries: dict[int, str]

    @classmethod
    def of(cls, exchange: int, deliveries: Mapping[int, Delivery], offers: Mapping[int, Values]) -> "Record":
        """Return the record of an exchange."""
        known: dict[int, str] = {}

        def hashed(values: Values) -> str:
            # In pairs what is delivered are the offers themselves: no array is hashed twice. All of them
            # are alive here, so that an id is of one only.
            if id(values) not in known:
                known[id(values)] = values_hash(values)
            return known[id(values)]

        return cls(
            exchange,
            {member: hashed(values) for member, values in sorted(offers.items())},
            {member: hashed(delivery.values) for member, delivery in sorted(deliveries.items())},
        )


def values_hash(values: Values) -> str:
    """Return the BLAKE2b-64, in hexadecimal, of a slice's values as they lie in a packet."""
    return bytes_hash(np.ascontiguousarray(values, dtype="<f4").data)


def bytes_hash(data: bytes | memoryview) -> str:
    """Return the hash of a slice's values as bytes."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


NOTHING: Final[Mapping[int, int]] = MappingProxyType({})


class Journal(Protocol):
    """A record of settled exchanges, of deliveries that are not acknowledged, and of the members.

    Every method that writes does so as a whole or not at all, and has done so when it returns. A member has
    at most one delivery.
    """

    @property
    def secret(self) -> bytes:
        """Drawn at random when the journal began; what members prove themselves by is made from it."""

    @property
    def rounds(self) -> int:
        """Rounds that have ended, on the stream plane; on the round plane they are the settled exchanges."""

    def settled(
        self,
        exchange: int,
        deliveries: Mapping[int, Delivery],
        offers: Mapping[int, Values],
        acknowledged: Mapping[int, int] = NOTHING,
    ) -> None:
        """Record a settled exchange: its number, its deliveries by member, and who offered what.

        With it are recorded the acknowledgements that came since the last one, by member: the exchange up to
        which it needs no delivery.
        """

    def ended(self, number: int) -> None:
        """Record that a round has ended."""

    def acknowledged(self, member: int, applied: int) -> None:
        """Record that a member applied the delivery of exchange ``applied``: it needs none up to that."""

    def released(self, member: int) -> None:
        """Drop a member's delivery for good: it was given up or set aside, or joins anew."""

    def enrolled(self, member: int, enrolment: Enrolment) -> None:
        """Record what is known of a member, in place of what was.

        A delivery that the enrolment leaves no use for goes with it: one of an exchange up to ``applied``,
        or any if the member does not count any more.
        """

    def restore(self) -> tuple[int, dict[int, Delivery]]:
        """Return the last settled exchange (0 if none) and the deliveries not acknowledged, by member."""

    def enrolments(self) -> dict[int, Enrolment]:
        """Return what is known of the members, by member."""

    def records(self) -> Iterator[Record]:
        """Return the settled exchanges in order, those that are kept."""

    def close(self) -> None:
        """Let go of what the journal holds; it is not used after that."""


@dataclass
class MemoryJournal:
    """A journal that lives as long as the process.

    Parameters
    ----------
    keep : int
        Of how many exchanges, the newest, it keeps the record. None by default: nobody audits it after its
        process, and hashing every slice takes longer than all else about an exchange.
    """

    keep: int = 0
    last: int = 0
    pending: dict[int, Delivery] = field(default_factory=dict)
    members: dict[int, Enrolment] = field(default_factory=dict)
    history: deque[Record] = field(init=False)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(SECRET_BYTES))
    rounds: int = 0

    def __post_init__(self) -> None:
        """Make room for the records."""
        self.history = deque(maxlen=self.keep)

    def settled(
        self,
        exchange: int,
        deliveries: Mapping[int, Delivery],
        offers: Mapping[int, Values],
        acknowledged: Mapping[int, int] = NOTHING,
    ) -> None:
        """Record a settled exchange."""
        for member, applied in acknowledged.items():
            self.acknowledged(member, applied)
        assert not self.pending.keys() & deliveries.keys(), "a delivery would replace one that waits"
        record = Record.of(exchange, deliveries, offers) if self.keep else None
        self.last = exchange
        self.pending.update(deliveries)
        if record is not None:
            self.history.append(record)
        for member in offers.keys() & self.members.keys():
            self.members[member] = replace(self.members[member], seen=exchange)

    def ended(self, number: int) -> None:
        """Take note of the round."""
        self.rounds = number

    def acknowledged(self, member: int, applied: int) -> None:
        """Forget what the member does not need any more."""
        self._drop(member, applied)
        known = self.members.get(member)
        if known is not None:
            self.members[member] = replace(known, applied=max(known.applied, applied))

    def released(self, member: int) -> None:
        """Forget the member's delivery."""
        self.pending.pop(member, None)

    def enrolled(self, member: int, enrolment: Enrolment) -> None:
        """Record what is known of a member."""
        self.members[member] = enrolment
        if enrolment.standing is Standing.ACTIVE:
            self._drop(member, enrolment.applied)
        else:
            self.released(member)

    def restore(self) -> tuple[int, dict[int, Delivery]]:
        """Return the last settled exchange and what waits."""
        return self.last, dict(self.pending)

    def enrolments(self) -> dict[int, Enrolment]:
        """Return what is known of the members."""
        return dict(self.members)

    def records(self) -> Iterator[Record]:
        """Return the newest settled exchanges in order, as many as are kept."""
        return iter(list(self.history))

    def close(self) -> None:
        """Nothing to let go of."""

    def _drop(self, member: int, applied: int) -> None:
        waiting = self.pending.get(member)
        if waiting is not None and waiting.exchange <= applied:
            del self.pending[member]
