"""The rows of a journal: of deliveries that wait, of members, of settled exchanges, of the whole run."""

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.protocol.store import Table

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
    digest : str
        :func:`values_hash` of the values, where it is known; else empty.
    """

    exchange: int
    values: Values
    digest: str = ""

    def without_values(self) -> "Delivery":
        """Return the delivery without its values, which all members of its exchange receive alike."""
        return Delivery(self.exchange, self.values[:, :0])


@dataclass(frozen=True, eq=False)
class Moved:
    """By how much an exchange has moved the anchor, as long as somebody needs it.

    Attributes
    ----------
    exchange : int
        Its number.
    previous : int
        The exchange that moved the anchor before; 0 if none did.
    chain : int
        The anchor's before it (:func:`wash_fl.core.anchor.chained`).
    delta : bytes
        D, as it travels: the delivery of each member that took part, and what the others missed.
    error, momentum : bytes
        What goes with the anchor at the exchange's coordinates after it, float32, little-endian; no momentum
        without an outer step.
    """

    exchange: int
    previous: int
    chain: int
    delta: bytes
    error: bytes
    momentum: bytes = b""


@dataclass(frozen=True, eq=False)
class Vector:
    """A slot of the anchor, or of what goes with it, as it was once an exchange was settled.

    Attributes
    ----------
    exchange : int
        After which.
    values : bytes
        Float32, little-endian.
    """

    exchange: int
    values: bytes


@dataclass(frozen=True, eq=False)
class AnchorChange:
    """What a settled exchange changes about the anchor's rows.

    Attributes
    ----------
    moved : Moved or None
        By how much it has moved; None if it has not.
    vectors : iterable of (int, Vector), or None
        The anchor as it was before, by key, if it is time to write it down as a whole.
    forget : collection of int
        Exchanges whose moves nobody needs any more.
    """

    moved: Moved | None = None
    vectors: Iterable[tuple[int, Vector]] | None = None
    forget: Collection[int] = ()


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


@dataclass(frozen=True)
class Head:
    """What a journal says of the run as a whole.

    Attributes
    ----------
    secret : bytes
        Drawn at random when the journal began; what members prove themselves by is made from it.
    settled : int
        The last settled exchange; 0 before the first.
    rounds : int
        Rounds that have ended, on the stream plane; on the round plane they are the settled exchanges.
    """

    secret: bytes
    settled: int = 0
    rounds: int = 0

    @classmethod
    def first(cls) -> "Head":
        """Return the head of a journal that begins."""
        return cls(secrets.token_bytes(SECRET_BYTES))


DELIVERIES: Final = Table[Delivery]("deliveries")
"""Those that are not acknowledged, by member."""
ENROLMENTS: Final = Table[Enrolment]("enrolments")
"""What is known of the members, by member."""
RECORDS: Final = Table[Record]("records")
"""The settled exchanges, by exchange."""
MOVES: Final = Table[Moved]("moves")
"""By how much exchanges have moved the anchor, by exchange; only where there is one."""
VECTORS: Final = Table[Vector]("vectors")
"""The anchor and what goes with it, by what and slot, as they were some exchanges ago."""
HEAD: Final = Table[Head]("meta")
"""One row."""
HEAD_KEY: Final = 1


def values_hash(values: Values) -> str:
    """Return the BLAKE2b-64, in hexadecimal, of a slice's values as they lie in a packet."""
    return bytes_hash(np.ascontiguousarray(values, dtype="<f4").data)


def bytes_hash(data: bytes | memoryview) -> str:
    """Return the hash of a slice's values as bytes."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()
