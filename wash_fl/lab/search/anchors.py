"""The rule of differences to an anchor, as the oracle knows it: what is conserved, and who has which anchor.

It follows what is on the server's disk, move by move, and never what a server has in its memory. What an
outer step adds to the sum over all members it works out from the momentum that is written down: from
m' = mu m + d comes d, the mean of what was offered, and d' = lr (d + mu m') is by how much all go on, D and
the change of the error together.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from wash_fl.core.anchor import Anchor, first_anchor, taken_part
from wash_fl.core.codec import decode_values
from wash_fl.core.draw import Draw
from wash_fl.lab.search.device import Held, Run, State
from wash_fl.lab.search.journal import WatchedStore
from wash_fl.lab.search.ledger import ROUNDING
from wash_fl.lab.search.setting import INITIAL
from wash_fl.lab.search.violation import Violation
from wash_fl.member.parameters import Values
from wash_fl.protocol.journal_rows import Moved


class Anchors:
    """Follows the server's anchor, and compares the members' with it.

    Parameters
    ----------
    run : Run
        The run.
    draw : Draw
        Its coordinates.
    journal : WatchedStore
        The server's.

    Attributes
    ----------
    error : ndarray of float32, shape (slots, size)
        What the server keeps of what its D left out.
    """

    def __init__(self, run: Run, draw: Draw, journal: WatchedStore) -> None:
        exchange = run.terms.exchange
        self._draw = draw
        self._journal = journal
        self._dtype = exchange.dtype
        self._rate, self._decay = exchange.outer_learning_rate, exchange.outer_momentum
        self._slots = len(run.layout.slots)
        self._first = first_anchor(run.layout, INITIAL)
        self.error = np.zeros_like(self._first)
        self._momentum = np.zeros_like(self._first)
        self._history = {0: Anchor(self._first.copy())}

    @property
    def _last(self) -> int:
        return next(reversed(self._history))

    def look(self, states: Sequence[State | None]) -> Held | None:
        """Take note of a move that is new on the disk; return what an outer step adds to the sum over all.

        Parameters
        ----------
        states : sequence of State or None
            What the members' disks hold.
        """
        moves = self._journal.known.moves
        new = max(moves, default=0)
        shift = None
        if new > self._last:
            shift = self._follow(moves[new], states)
        if self._journal.known.vectors:
            _demand(
                all(np.array_equal(*pair) for pair in zip(self._on_disk(), self._now(), strict=True)),
                "the journal does not give the server's anchor back, and what goes with it",
            )
        return shift

    def check(self, states: Mapping[int, State | None]) -> None:
        """Check that each of these members has the anchor that there was when it applied its last D."""
        for member, state in states.items():
            if state is not None:
                self._check_anchor(state, f"member {member} has another anchor than the server had")

    def received(self, exchange: int, state: State, now: Values) -> Values:
        """Return what an exchange in which a member took part makes of what it holds there."""
        if state.offer is None or state.progress.offered != exchange:
            return now  # it has forgotten that
        return taken_part(
            now,
            offered=state.offer,
            anchor=self._before(exchange).at(self._draw.coordinates(exchange)),
            delta=self._delta(self._journal.known.moves[exchange]),
            dtype=self._dtype,
        )

    def restored(self) -> None:
        """Take note that an older copy of the journal is in place: its history is that from now on."""
        last = max(self._journal.known.moves, default=0)
        self._history = {exchange: each for exchange, each in self._history.items() if exchange <= last}
        if self._journal.known.vectors:
            _, self.error, self._momentum, *_ = self._on_disk()

    def _follow(self, moved: Moved, states: Sequence[State | None]) -> Held | None:
        exchange, known = moved.exchange, self._journal.known
        took_part = known.settled[exchange].deliveries
        for member in took_part:
            state = states[member]
            if state is not None and state.progress.offered == exchange > state.progress.applied:
                self._check_anchor(state, f"member {member} takes part with another anchor")
        _demand(moved.previous == self._last, "the history of the anchor has a gap")
        places = self._draw.coordinates(exchange)
        delta, error = self._delta(moved), _values(moved.error, self._slots)
        shift = None
        if self._decay:
            momentum = _values(moved.momentum, self._slots)
            mean = momentum - self._decay * self._momentum[:, places]
            step = self._rate * (mean + self._decay * momentum)
            gone = (error - self.error[:, places]) / len(took_part) + delta
            _demand(bool((np.abs(gone - step) < ROUNDING).all()), "an outer step goes elsewhere")
            shift = np.zeros_like(self.error)
            shift[:, places] = len(took_part) * (step - mean)
            self._momentum[:, places] = momentum
        anchor = self._history[self._last].copy()
        anchor.move(exchange, places, delta)
        self.error = self.error.copy()
        self.error[:, places] = error
        self._history[exchange] = anchor
        return shift

    def _check_anchor(self, state: State, what: str) -> None:
        should, own = self._before(state.progress.applied + 1), state.anchor
        same = own is not None and np.array_equal(own.values.view(np.uint32), should.values.view(np.uint32))
        _demand(same and own is not None and own.chain == should.chain, what)

    def _before(self, exchange: int) -> Anchor:
        """Return the server's anchor as it was before an exchange."""
        return self._history[max(each for each in self._history if each < exchange)]

    def _delta(self, moved: Moved) -> Values:
        return decode_values(moved.delta, self._dtype, self._slots, self._draw.count(moved.exchange))

    def _now(self) -> tuple[Held, Held, Held]:
        return self._history[self._last].values, self.error, self._momentum

    def _on_disk(self) -> tuple[Held, Held, Held]:
        """Return the anchor, the error and the momentum as the journal's rows have them."""
        known = self._journal.known
        rows = tuple(np.zeros_like(self._first) for _ in range(3))
        for key, vector in known.vectors.items():
            slot, kind = divmod(key, 3)
            rows[kind][slot] = np.frombuffer(vector.values, "<f4")
        written = next(iter(known.vectors.values())).exchange
        for exchange, moved in sorted(known.moves.items()):
            if exchange > written:
                places = self._draw.coordinates(exchange)
                rows[0][:, places] += self._delta(moved)
                rows[1][:, places] = _values(moved.error, self._slots)
                if moved.momentum:
                    rows[2][:, places] = _values(moved.momentum, self._slots)
        return rows[0], rows[1], rows[2]


def _values(data: bytes, slots: int) -> Values:
    return np.frombuffer(data, "<f4").reshape(slots, -1)


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)
