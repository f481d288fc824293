"""Differences to an anchor: a value at every coordinate that the server and all members agree on.

Differences need half the bits that values need, in both directions. A member offers u = q(v - a). The server
takes their mean, may let it go further (the outer step: Nesterov, as in DiLoCo, Douillard et al. 2023), and
sends D, the same for all, by which everybody moves the anchor. What q leaves out of an offer stays with its
member, as always (:mod:`wash_fl.core.codec`). What q leaves out of D stays with the server: its *error*, a
sum over the members that took part, so that what all members and the error add up to is conserved whatever
number takes part in the next exchange.

All arithmetic is float32, each operation rounded by itself, but for the mean, which is
:func:`wash_fl.core.mix.average`'s. ``docs/protocol.md``, section 11, has the operations one by one: members
compute their anchor themselves, and must get the server's last bit. That they did not part unnoticed, each
following another history of D, is what the *chain* tells, a hash of all D so far.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig
from wash_fl.core.codec import decode_values, encode_values, rounded
from wash_fl.core.layout import Layout
from wash_fl.core.mix import average

Values = NDArray[np.float32]
Coordinates = NDArray[np.int64]


class Anchor:
    """An anchor, of a member or of the server.

    Parameters
    ----------
    values : ndarray of float32, shape (slots, size)
        It; changed in place.
    chain : int
        That of all D that have moved it; 0 before the first.
    """

    def __init__(self, values: Values, chain: int = 0) -> None:
        self.values = values
        self.chain = chain

    def at(self, coordinates: Coordinates) -> Values:
        """Return a copy of the anchor at coordinates, shape (slots, count)."""
        return self.values[:, coordinates]

    def move(self, exchange: int, coordinates: Coordinates, delta: Values) -> None:
        """Move the anchor by the D of an exchange, shape (slots, count), in place."""
        self.values[:, coordinates] += delta
        self.chain = chained(self.chain, exchange, delta)

    def copy(self) -> "Anchor":
        """Return a copy that nothing changes."""
        return Anchor(self.values.copy(), self.chain)


@dataclass(frozen=True, eq=False)
class Move:
    """What an exchange makes of an anchor, at its coordinates.

    Attributes
    ----------
    data : bytes
        D as it travels.
    delta : ndarray of float32, shape (slots, count)
        D, by which the anchor moves.
    error : ndarray of float32, shape (slots, count)
        The server's error after it.
    momentum : ndarray of float32, shape (slots, count), or None
        The outer step's momentum after it, if there is any.
    """

    data: bytes
    delta: Values
    error: Values
    momentum: Values | None


class ServerAnchor(Anchor):
    """The server's anchor, and what goes with it.

    Parameters
    ----------
    values : ndarray of float32, shape (slots, size)
        It; changed in place.
    config : ExchangeConfig
        Its ``dtype``, ``robust``, ``outer_learning_rate`` and ``outer_momentum``.

    Attributes
    ----------
    error : ndarray of float32, shape (slots, size)
        What all its D left out.
    momentum : ndarray of float32, shape (slots, size), or None
        The outer step's momentum, if there is any.
    """

    def __init__(self, values: Values, config: ExchangeConfig) -> None:
        super().__init__(values)
        self.error: Values = np.zeros_like(values)
        self.momentum: Values | None = np.zeros_like(values) if config.outer_momentum else None
        self._dtype = config.dtype
        self._robust = config.robust
        self._rate = np.float32(config.outer_learning_rate)
        self._decay = np.float32(config.outer_momentum)

    def outcome(self, coordinates: Coordinates, offers: Sequence[Values]) -> Move | None:
        """Return what an exchange makes of the anchor; nothing is changed.

        Parameters
        ----------
        coordinates : ndarray of int64, shape (count,)
            Those of the exchange.
        offers : sequence of ndarray of float32, each of shape (slots, count)
            The differences as they travelled, in order of member.

        Returns
        -------
        Move or None
            None if something of it would be infinite: such an exchange moves nothing.
        """
        members = np.float32(len(offers))
        with np.errstate(over="ignore", invalid="ignore"):
            step = average(offers, self._robust)
            momentum = None
            if self.momentum is not None:
                momentum = self._decay * self.momentum[:, coordinates] + step
                step = step + self._decay * momentum
            if self._rate != 1:
                step = self._rate * step
            wanted = step + self.error[:, coordinates] / members
            if not np.isfinite(wanted).all():
                return None
            data = encode_values(wanted, self._dtype)
            delta = decode_values(data, self._dtype, *wanted.shape)
            error = members * (wanted - delta)
            after = self.values[:, coordinates] + delta
        if not all(np.isfinite(each).all() for each in (error, after, momentum) if each is not None):
            return None
        return Move(data, delta, error, momentum)

    def apply(self, exchange: int, coordinates: Coordinates, move: Move) -> None:
        """Move the anchor, and what goes with it, in place."""
        self.move(exchange, coordinates, move.delta)
        self.error[:, coordinates] = move.error
        if self.momentum is not None:
            assert move.momentum is not None, "a move of a run without an outer step"
            self.momentum[:, coordinates] = move.momentum


def chained(chain: int, exchange: int, delta: Values) -> int:
    """Return the chain of an anchor after the D of an exchange, from that before it."""
    data = delta.astype("<f4", copy=False).tobytes()
    digest = hashlib.blake2b(struct.pack("<QQQ", chain, exchange, len(data)), digest_size=8)
    digest.update(data)
    return int.from_bytes(digest.digest(), "little")


def first_anchor(layout: Layout, weights: Mapping[str, NDArray[Any]]) -> Values:
    """Return the anchor of members that start from these weights: 0 in all slots but the parameters'.

    Parameters
    ----------
    layout : Layout
        What is exchanged.
    weights : mapping of str to ndarray
        A state dict, in which every exchanged tensor is.

    Returns
    -------
    ndarray of float32, shape (slots, size)
    """
    anchor = np.zeros((len(layout.slots), layout.size), dtype=np.float32)
    np.concatenate([np.asarray(weights[each.name]).reshape(-1) for each in layout.tensors], out=anchor[0])
    return anchor


def difference(values: Values, anchor: Values) -> Values:
    """Return what a member offers before it is encoded: by how much its values lie beyond the anchor."""
    # What overflows is refused as every value that is not finite.
    with np.errstate(over="ignore"):
        apart: Values = values - anchor
    return apart


def taken_part(now: Values, *, offered: Values, anchor: Values, delta: Values, dtype: str) -> Values:
    """Return a member's new values after an exchange in which it took part.

    The anchor as it is now, and what the member did not give away: ``(a + D) + ((now - a) - u)``.

    Parameters
    ----------
    now, offered : ndarray of float32, shape (slots, count)
        What it holds, and what it held when it offered, at the coordinates of the exchange.
    anchor : ndarray of float32, shape (slots, count)
        The anchor there, before the exchange moved it: it was that when the member offered.
    delta : ndarray of float32, shape (slots, count)
        D.
    dtype : str
        The dtype of its offer.
    """
    kept = (now - anchor) - rounded(difference(offered, anchor), dtype)
    after: Values = (anchor + delta) + kept
    return after
