"""The server's side of differences to an anchor: what an exchange makes of it, and what members have missed.

Members move their anchors themselves, by the D of every exchange, and offer only once they have all of them.
So each D is kept until every member that counts has it, and that of a member that took part until it says so.
One that is so far behind that all the D it missed are more bytes than the anchor gets the whole anchor.

The journal has a row for each D, with what goes with it at the exchange's coordinates, and now and then the
whole anchor: as often as the rows since then are as large as it is. Together these give every bit back.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from wash_fl.config import ExchangeConfig
from wash_fl.core.anchor import Move, ServerAnchor, chained
from wash_fl.core.codec import decode_values
from wash_fl.core.draw import Draw
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import AnchorChange, Moved, Values, Vector

MOST_MISSED: Final = 1024
"""How many D a member is sent at most before it gets the whole anchor."""

_KINDS: Final = ("values", "error", "momentum")


@dataclass(frozen=True, eq=False)
class Missed:
    """What a member needs before it offers again.

    Attributes
    ----------
    after : int
        The last exchange that it has acknowledged.
    chain : int
        That of the anchor by then.
    settled : int
        The last exchange that is settled.
    moves : tuple of Moved
        The D of exchanges since, in order.
    whole : ServerAnchor or None
        What follows them, if there are too many.
    """

    after: int
    chain: int
    settled: int
    moves: tuple[Moved, ...] = ()
    whole: ServerAnchor | None = None


class Anchored:
    """The anchor of a run, and how far each member is behind it.

    Parameters
    ----------
    draw : Draw
        The coordinates of the run's exchanges.
    config : ExchangeConfig
        The dtype, and the outer step.
    journal : Journal
        From where it is restored.
    first : ndarray of float32, shape (slots, size)
        The anchor that the run begins with.
    before : int, optional
        An exchange: it and those after it are as if they had not been settled, for who looks at it again.

    Attributes
    ----------
    anchor : ServerAnchor
        As it is after the last settled exchange.
    """

    def __init__(
        self,
        draw: Draw,
        config: ExchangeConfig,
        journal: Journal,
        first: Values,
        *,
        before: int | None = None,
    ) -> None:
        self.anchor = ServerAnchor(first.copy(), config)
        self._draw = draw
        self._dtype = config.dtype
        self._journal = journal
        self._applied: dict[int, int] = {}
        self._moves: dict[int, Moved] = {}
        self._written = 0  # the exchange after which the journal has all of the anchor
        self._since = 0  # coordinates of the moves since
        self._restore(before)

    def applied(self, member: int) -> int:
        """Return the last exchange whose D a member has, as far as it has acknowledged it."""
        return max(self._journal.applied(member), self._applied.get(member, 0))

    def acknowledge(self, member: int, applied: int) -> None:
        """Take note of how far a member is."""
        self._applied[member] = applied

    def release(self, member: int) -> None:
        """Forget how far a member was: it starts anew, where the journal says, or counts no more."""
        self._applied.pop(member, None)

    def is_behind(self, member: int) -> bool:
        """Return whether a member lacks a D, and so cannot offer."""
        return self._last > self.applied(member)

    def missed(self, member: int, settled: int, took_part: int | None) -> Missed:
        """Return what a member needs before it offers again.

        Parameters
        ----------
        member : int
            Which.
        settled : int
            The last exchange that is settled.
        took_part : int or None
            The exchange whose delivery waits for it.
        """
        after, chain = self.applied(member), self.anchor.chain
        moves: list[Moved] = []
        size, exchange = 0, self._last
        while exchange > after:
            moved = self._moves.get(exchange)
            size += 0 if moved is None else len(moved.delta)
            if moved is None or size > self.anchor.values.nbytes or len(moves) >= MOST_MISSED:
                escrowed = () if took_part is None else (self._moves[took_part],)
                chain = escrowed[0].chain if escrowed else 0
                return Missed(after, chain, settled, escrowed, self.anchor)
            moves.append(moved)
            exchange, chain = moved.previous, moved.chain
        return Missed(after, chain, settled, tuple(reversed(moves)))

    def start(self, settled: int) -> Missed:
        """Return what a member needs that starts from a donor's weights: all of the anchor."""
        return Missed(settled, 0, settled, (), self.anchor)

    def outcome(self, exchange: int, offers: Sequence[Values]) -> Move | None:
        """Return what an exchange makes of the anchor; nothing is changed."""
        return self.anchor.outcome(self._draw.coordinates(exchange), offers)

    def beyond(self, exchange: int, offers: Mapping[int, Values]) -> dict[int, Values]:
        """Return the values that offers of differences stand for, by member."""
        anchor = self.anchor.at(self._draw.coordinates(exchange))
        return {member: anchor + offer for member, offer in offers.items()}

    def change(
        self, exchange: int, move: Move | None, waiting: Collection[int], acknowledged: Mapping[int, int]
    ) -> AnchorChange:
        """Return what is to be written about the anchor with a settled exchange.

        Parameters
        ----------
        exchange : int
            Which.
        move : Move or None
            What it makes of the anchor.
        waiting : collection of int
            The exchanges whose deliveries somebody waits for.
        acknowledged : mapping of int to int
            What is recorded of members with it.
        """
        moved = None
        if move is not None:
            chain = self.anchor.chain
            moved = Moved(exchange, self._last, chain, move.data, _bytes(move.error), _bytes(move.momentum))
        whole = self._since >= self._draw.layout.size
        written = exchange - 1 if whole else self._written
        needless = self._needless(written, waiting, acknowledged)
        return AnchorChange(moved, self._vectors(written) if whole else None, needless)

    def changed(self, exchange: int, move: Move | None, change: AnchorChange) -> None:
        """Take over what is written."""
        for each in change.forget:
            del self._moves[each]
        if change.vectors is not None:
            self._written, self._since = exchange - 1, 0
        if move is not None and change.moved is not None:
            coordinates = self._draw.coordinates(exchange)
            self.anchor.apply(exchange, coordinates, move)
            self._keep(change.moved)
            self._since += coordinates.size

    @property
    def _last(self) -> int:
        """The last exchange that moved the anchor; 0 if none did."""
        return next(reversed(self._moves), 0)

    def _keep(self, moved: Moved) -> None:
        # What goes with the anchor is in it.
        self._moves[moved.exchange] = replace(moved, error=b"", momentum=b"")

    def _needless(
        self, written: int, waiting: Collection[int], acknowledged: Mapping[int, int]
    ) -> tuple[int, ...]:
        """Return the exchanges whose moves nobody needs; the last one is always kept."""
        active = self._journal.active()
        slowest = min((max(self.applied(each), acknowledged.get(each, 0)) for each in active), default=0)
        needless, size = [], 0
        for number, (exchange, moved) in enumerate(reversed(self._moves.items())):
            size += len(moved.delta)
            sent = exchange > slowest and size <= self.anchor.values.nbytes and number < MOST_MISSED
            restored = exchange > written and self._journal.lasts
            if number and not (sent or restored or exchange in waiting):
                needless.append(exchange)
        return tuple(needless)

    def _restore(self, before: int | None) -> None:
        vectors = dict(self._journal.vectors())
        if not vectors:
            if self._journal.lasts:
                self._journal.anchored(self._vectors(0))
            return
        self._written = next(iter(vectors.values())).exchange
        for key, vector in vectors.items():
            slot, kind = divmod(key, len(_KINDS))
            getattr(self.anchor, _KINDS[kind])[slot] = np.frombuffer(vector.values, dtype="<f4")
        for moved in self._journal.moves():
            if before is not None and moved.exchange >= before:
                continue
            self._keep(moved)
            coordinates = self._draw.coordinates(moved.exchange)
            shape = len(self._draw.layout.slots), coordinates.size
            delta = decode_values(moved.delta, self._dtype, *shape)
            if moved.exchange > self._written:
                momentum = _values(moved.momentum, shape) if moved.momentum else None
                move = Move(moved.delta, delta, _values(moved.error, shape), momentum)
                self.anchor.apply(moved.exchange, coordinates, move)
                self._since += coordinates.size
            self.anchor.chain = chained(moved.chain, moved.exchange, delta)

    def _vectors(self, exchange: int) -> Iterator[tuple[int, Vector]]:
        """Yield the anchor and what goes with it, a slot at a time: each is as large as a model."""
        for kind, name in enumerate(_KINDS):
            vectors = getattr(self.anchor, name)
            for slot in range(0 if vectors is None else len(vectors)):
                yield len(_KINDS) * slot + kind, Vector(exchange, _bytes(vectors[slot]))


def _bytes(values: Values | None) -> bytes:
    return b"" if values is None else values.astype("<f4", copy=False).tobytes()


def _values(data: bytes, shape: tuple[int, int]) -> Values:
    return np.frombuffer(data, dtype="<f4").reshape(shape).astype(np.float32, copy=False)
