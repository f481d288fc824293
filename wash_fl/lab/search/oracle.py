"""What every member should hold, and whether the fleet holds it.

A member *effectively* holds what its state on disk says, except at the coordinates of a waiting delivery
that it has not applied: there it holds the delivery's (docs/protocol.md, section 7). Per coordinate the
multiset of effective values over the members that count is conserved. Only this changes it:

- a member trains: its values before leave the multiset, those after enter it. On streams its state on disk
  is the last snapshot with its log over it, so what it learned enters where it offers it (those coordinates),
  where it applies a delivery over what it learned meanwhile, and where it is saved;
- a member starts or starts anew: a copy of its donor's values enters;
- a member is given up or set aside, or starts anew: what it held effectively leaves.

A member whose disk is lost or went back goes on counting as what it was, a *ghost*, until the server has
noticed, or until it is as far again as it ever said it was, with no offer of the ghost's before the escrow or
on its way there: what the ghost has offered is what counts there, whatever its member has learned meanwhile.

With differences to an anchor it is the sum that is conserved, and the server's error counts in it; an outer
step moves it, by what the rule says (:mod:`wash_fl.lab.search.anchors`).

Once somebody has put an older copy of the journal in place, what all hold at that moment is what is conserved
from then on: what had been exchanged since cannot be known. A member that is *ahead* of the copy must not be
in an exchange, nor in the average, as long as it is.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wash_fl.core.codec import taken_over
from wash_fl.core.draw import Draw
from wash_fl.core.identity import weights_sha256
from wash_fl.lab.search.anchors import Anchors
from wash_fl.lab.search.device import Device, Held, Run, State
from wash_fl.lab.search.journal import WatchedStore
from wash_fl.lab.search.ledger import Keys, ledger_for
from wash_fl.lab.search.letters import Letter, Reply, Weights
from wash_fl.lab.search.violation import Violation
from wash_fl.member.log import Kind
from wash_fl.member.parameters import Values
from wash_fl.protocol.journal_rows import Delivery, Standing
from wash_fl.protocol.messages import Status

Life = tuple[int, str]
"""A start: its number, and the hash of the weights."""


@dataclass(frozen=True, eq=False)
class _Counted:
    """A member that counts: which start it goes on from, and what it effectively holds."""

    life: Life
    keys: Keys


class Oracle:
    """Watches the members' disks and the server's journal.

    Parameters
    ----------
    run : Run
        The run.
    draw : Draw
        Its coordinates.
    devices : sequence of Device
        By member.
    journal : WatchedStore
        The server's.
    offered : callable
        Returns the members whose offers a server holds, in an exchange that is open.
    adrift : callable
        ``adrift(member)`` returns what tells whether an offer that is on its way now may still arrive.
    """

    def __init__(
        self,
        run: Run,
        draw: Draw,
        devices: Sequence[Device],
        journal: WatchedStore,
        *,
        offered: Callable[[], Collection[int]],
        adrift: Callable[[int], Callable[[], bool]],
    ) -> None:
        self._slots = len(run.layout.slots)
        self._draw = draw
        self._devices = devices
        self._journal = journal
        self._offered = offered
        self._adrift = adrift
        self._ghosts_offer: dict[int, Callable[[], bool]] = {}
        self._config = run.terms.exchange
        self._run = run
        self._ledger = ledger_for(run)
        self._anchors = Anchors(run, draw, journal) if run.terms.exchange.anchored else None
        self._counted: dict[int, _Counted] = {}
        self._ghosts: dict[int, State] = {}
        self._starts: dict[str, Keys] = {}
        self._seen: dict[int, State | None] = {}
        self._said: dict[tuple[int, Life], tuple[int, int]] = {}
        self._looked: tuple[int, list[int]] | None = None
        self._cache: dict[int, tuple[State, Delivery | None, Keys]] = {}
        self._coordinates: dict[int, list[int]] = {}
        self._live: dict[int, Held] = {}
        self._ahead: set[int] = set()
        self._of_before: dict[int, Life] = {}
        self._strays: dict[int, Life] = {}
        self._restored: int | None = None
        self._undone: set[int] = set()

    @property
    def counting(self) -> set[int]:
        """The members that count."""
        return set(self._counted)

    @property
    def journal_is_older(self) -> bool:
        """Whether somebody has put an older copy of the journal in place."""
        return self._restored is not None

    @property
    def sound(self) -> set[int]:
        """Those of them whose disks have what they should, and who are not ahead of the journal."""
        return self.counting - self._ghosts.keys() - self._ahead - self._parted()

    def starting(self, weights: Weights) -> None:
        """Take note of weights that members are given to start from."""
        flat = np.concatenate([np.asarray(each, dtype=np.float32) for each in weights.values()])
        held = np.zeros((self._slots, flat.size), np.float32)
        held[0] = flat
        self._starts[weights_sha256(weights)] = self._ledger.keys(held)

    def begins(self, member: int, *, undone: bool) -> None:
        """Take note that a member's process begins to work on a request, with what its disk holds.

        ``undone`` says that the request is of before an older journal was put in place.
        """
        self._live.pop(member, None)
        (self._undone.add if undone else self._undone.discard)(member)

    def training(self, member: int, held: Held, *, goes_on: bool = False) -> None:
        """Check what a member trains with: what it effectively holds, every delivery applied.

        ``goes_on`` says that it has trained before in this process: then it is what it learned, but for what
        it received since.
        """
        if not self._is_sound(member) or member in self._undone or self._forgot(member):
            return
        live = self._live.get(member) if goes_on else None
        should = self._counted[member].keys if live is None else self._ledger.keys(live)
        self._demand(
            self._ledger.keys(held) == should,
            f"member {member} trains on values that are not what it effectively holds",
        )

    def _forgot(self, member: int) -> bool:
        """Return whether a member has forgotten the offer whose delivery waits, in an older journal.

        It was a ghost when that was put in place. It starts anew as soon as it hears of the delivery, and may
        train until then, where it does not reach the server.
        """
        state, waiting = self._devices[member].state(), self._journal.known.pending.get(member)
        if self._restored is None or state is None or waiting is None:
            return False
        return waiting.exchange > max(state.progress.offered, state.progress.applied)

    def learned(self, member: int, held: Held) -> None:
        """Take note of what a member holds in its memory after a step on streams."""
        self._live[member] = held.copy()

    def said(self, member: int, applied: int) -> None:
        """Take note of what a member says on a stream about how far it is."""
        state = self._devices[member].state()
        if state is not None:
            round_, before = self._said.get((member, _life(state)), (0, 0))
            self._said[member, _life(state)] = round_, max(before, applied)

    def recorded(self, member: int, kind: Kind, exchange: int, values: Values) -> None:
        """Check what a member has written into its log, and take note of it."""
        live = self._live.get(member)
        places = self._coordinates_of(exchange)
        if kind in (Kind.MISSED, Kind.ANCHORED):
            return  # it holds what it held; its anchor is compared with all others
        if kind is Kind.SETTLED:
            values = values[: self._slots]
        if kind is not Kind.OFFERED:
            delivery = self._journal.known.pending.get(member)
            state = self._devices[member].state()
            if state is None:
                return  # whoever compares all members sees what it is
            if exchange > self._journal.known.last:
                self._hears_of_what_is_undone(member, places, values)
                return
            if live is None or delivery is None or delivery.exchange != exchange:
                return  # as above
            now = live[:, places]
            if self._anchors is not None:
                received = self._anchors.received(exchange, state, now)
            else:
                received = self._received(state, delivery, now=now if self._config.overlap else None)
            if self._is_sound(member):
                self._demand(np.array_equal(values, received), f"member {member} applies other values")
            live[:, places] = received
            if not self._config.overlap:
                return
        elif self._is_sound(member):
            self._demand(
                live is not None and np.array_equal(values, live[:, places]),
                f"member {member} offers values that it does not hold",
            )
        self._now_holds(member)

    def _hears_of_what_is_undone(self, member: int, places: list[int], values: Values) -> None:
        """Take note that a member applies what was settled before an older journal was put in place."""
        self._demand(self._restored is not None, f"member {member} applies an exchange that is not settled")
        if member in self._live:
            self._live[member][:, places] = values
        self._now_holds(member)
        if member in self._counted:
            self._strays[member] = self._counted[member].life

    def saved(self, member: int) -> None:
        """Check what a member is saved as in the middle of a request on streams, and take note of it."""
        live, state = self._live.get(member), self._devices[member].state()
        if live is None or state is None:
            return
        if self._is_sound(member):
            self._demand(np.array_equal(state.held, live), f"member {member} is saved as what it is not")
        self._now_holds(member)

    def handled(self, member: int, letter: Letter | None, reply: Reply | None) -> None:
        """Take note of what a member has done, as far as it reached its disk, and check."""
        device = self._devices[member]
        before, now = self._seen.get(member), device.state()
        self._seen[member] = now
        if now is not None and before is not None and now is not before:
            self._check_lineage(member, before, now)
            trained = device.trained
            by_rounds = self._config.exchange_plane == "round"
            if (
                by_rounds
                and trained is not None
                and now.progress.round == trained[0]
                and self._is_sound(member)
            ):
                self._replace(member, self._ledger.keys(trained[1]))
        answer = None if reply is None else reply.answer
        if now is not None and answer is not None and answer.status is Status.DONE:
            life = _life(now)
            round_, applied = self._said.get((member, life), (0, 0))
            self._said[member, life] = max(round_, answer.round), max(applied, answer.applied)
        if member in self._undone and now is not None and now is not before:
            self._did_what_is_undone(member, now)
        self._lay(member, now)
        what = "gone on" if letter is None else f"handled a {letter.request.kind} request"
        self.check(f"member {member} has {what}")

    def _did_what_is_undone(self, member: int, now: State) -> None:
        """Take note that a member did what a server asked of it before an older journal was put in place.

        What it then holds is of a history that is not; it is met ahead, or its anchor is another, and it
        starts anew.
        """
        if now.progress.applied <= (self._restored or 0):
            return
        self._now_holds(member)
        self._of_before[member] = self._strays[member] = _life(now)

    def losing(self, member: int) -> None:
        """Take note that a member's newest state is about to be lost."""
        newest = self._devices[member].state()
        if self._is_sound(member) and newest is not None and not self._strayed(member):
            self._ghosts[member] = newest
            self._ghosts_offer[member] = self._adrift(member)

    def lost(self, member: int) -> None:
        """Take note that it is lost."""
        now = self._seen[member] = self._devices[member].state()
        if self._strayed(member):
            self._now_holds(member)
        self._lay(member, now)
        self.check(f"member {member} has lost its state")

    def journal_restored(self) -> None:
        """Take note that the journal is an older copy: what all hold now is what there should be from now on.

        Who is ahead of it is left out, and must not be in the average.
        """
        for counted in self._counted.values():
            self._ledger.take_out(counted.keys)
        self._counted, self._ghosts, self._said = {}, {}, {}
        if self._anchors is not None:
            self._anchors.restored()
            self._ledger = ledger_for(self._run)
            self._ledger.put_in(self._ledger.keys(self._anchors.error))
        self._restored = self._journal.known.last
        self._looked = None
        self._check_ahead()
        states = {member: self._devices[member].state() for member in self._ahead}
        self._of_before = {member: _life(state) for member, state in states.items() if state is not None}
        self._strays |= self._of_before
        self.check("the journal is an older copy", starts=False)

    def _check_ahead(self) -> None:
        """Check that nobody who is ahead of the journal has taken part in an exchange."""
        if self._restored is None:
            return
        states = {member: device.state() for member, device in enumerate(self._devices)}
        # Who is ahead no more is like any other again, by the numbers.
        self._ahead = {
            member for member, state in states.items() if state is not None and self._is_ahead(state)
        }
        for member in self._ahead & self._journal.known.pending.keys():
            self._demand(
                self._journal.known.pending[member].exchange <= self._restored,
                f"member {member} is ahead of the journal, and has taken part in an exchange",
            )

    def _parted(self) -> set[int]:
        """Return the members whose anchor has gone another way than that of an older journal since.

        They may be as far as it again by the numbers. None of them takes part in an exchange, for which
        :class:`Anchors` looks, and each starts anew.
        """
        if self._anchors is None:
            return set()
        states = {member: self._devices[member].state() for member in self._of_before}
        return {
            member
            for member, state in states.items()
            if state is not None and _life(state) == self._of_before[member]
        }

    def _is_ahead(self, state: State) -> bool:
        return state.progress.applied > self._journal.known.last or state.progress.round > self._rounds() + 1

    def _rounds(self) -> int:
        known = self._journal.known
        return known.last if self._config.exchange_plane == "round" else known.rounds

    def check(self, when: str, *, starts: bool = True) -> None:
        """Compare what the members that count hold with what they should.

        ``starts`` says that who counts from now on has just started.

        Raises
        ------
        Violation
            If a value is missing, or there is one too many.
        """
        looked = (self._journal.writes, [device.changes for device in self._devices])
        if looked == self._looked:
            return
        self._looked = looked
        if self._anchors is not None:
            states = [device.state() for device in self._devices]
            moved = self._anchors.look(states)
            if moved is not None:
                self._ledger.put_in(self._ledger.keys(moved))
        found = {
            member: counted
            for member in range(len(self._devices))
            if (counted := self._look(member)) is not None
        }
        for member in self._counted.keys() | found.keys():
            before, now = self._counted.get(member), found.get(member)
            if before is not None and (now is None or before.life != now.life):
                self._ledger.take_out(before.keys)
            if now is not None and (before is None or before.life != now.life):
                if starts:
                    self._check_start(member, now)
                self._ledger.put_in(now.keys)
        self._counted = found
        self._check_ahead()
        if self._anchors is not None:
            self._anchors.check({member: states[member] for member in found.keys() & self.sound})
        places = self._ledger.differences([*(each.keys for each in found.values()), *self._error()])
        if places:
            raise Violation(f"{when}: members {sorted(found)} do not hold what they should at {places}")

    def collected(self, weights: Mapping[int, Weights]) -> None:
        """Check that the members that were collected hold together all there should be, to the bit."""
        self.check("the members are collected")
        self._demand(bool(weights) or not self._counted, "nobody was collected")
        self._demand(set(weights) == self.counting, f"collected {set(weights)}, and {self.counting} count")
        if self._ghosts.keys() & weights.keys():
            # Its disk lost what it had said was written, after the last reply that could show it.
            return
        rows = [np.concatenate([*each.values()])[None] for each in weights.values()]
        rows += [] if self._anchors is None else [self._anchors.error[:1]]
        places = self._ledger.differences([self._ledger.keys(each) for each in rows], parameters=True)
        self._demand(not places, "the models that were handed in do not hold what they should")

    def _error(self) -> list[Keys]:
        """Return what the server holds itself."""
        return [] if self._anchors is None else [self._ledger.keys(self._anchors.error)]

    def _look(self, member: int) -> _Counted | None:
        """Return what a member effectively holds, if it counts."""
        known = self._journal.known
        enrolment = known.members.get(member)
        if enrolment is None or enrolment.standing is not Standing.ACTIVE:
            self._ghosts.pop(member, None)
            return None
        for state in (self._ghosts.get(member), self._devices[member].state()):
            if state is not None:
                if _life(state) == (enrolment.incarnation, enrolment.initial):
                    return _Counted(_life(state), self._effective(member, state))
                self._ghosts.pop(member, None)
        return None

    def _effective(self, member: int, state: State) -> Keys:
        delivery = self._journal.known.pending.get(member)
        if delivery is not None and delivery.exchange <= state.progress.applied:
            delivery = None
        cached = self._cache.get(member)
        if cached is not None and cached[0] is state and cached[1] is delivery:
            return cached[2]
        held = state.held
        if delivery is not None:
            held = held.copy()
            places = self._coordinates_of(delivery.exchange)
            if self._anchors is not None:
                held[:, places] = self._anchors.received(delivery.exchange, state, held[:, places])
            else:
                held[:, places] = self._received(state, delivery)
        keys = self._ledger.keys(held)
        self._cache[member] = state, delivery, keys
        return keys

    def _received(self, state: State, delivery: Delivery, now: Held | None = None) -> Held:
        """Return what a delivery makes of a member that holds this now, or still what it offered."""
        dtype = self._config.dtype
        if state.offer is None or state.progress.offered != delivery.exchange:
            return delivery.values
        mean = self._draw.schedule.options_at(delivery.exchange).members_average
        return taken_over(delivery.values, offered=state.offer, dtype=dtype, now=now, mean=mean)

    def _strayed(self, member: int) -> bool:
        """Return whether a member has gone on after what an older journal knows: to lose that is no loss."""
        counted = self._counted.get(member)
        return counted is not None and (member in self._ahead or self._strays.get(member) == counted.life)

    def _is_sound(self, member: int) -> bool:
        return member in self._counted and member not in self._ghosts

    def _now_holds(self, member: int) -> None:
        """Count a member as what its disk says from now on: it has trained."""
        state = self._devices[member].state()
        if state is not None and self._is_sound(member) and _life(state) == self._counted[member].life:
            self._replace(member, self._effective(member, state))

    def _lay(self, member: int, now: State | None) -> None:
        """Let a ghost rest if its member is as far as it ever said it was: then nobody misses anything."""
        if now is None or member not in self._ghosts or member in self._offered():
            return
        unsettled = self._ghosts[member].progress.offered > self._journal.known.last
        if unsettled and self._ghosts_offer[member]():
            return
        waiting = self._journal.known.pending.get(member)
        if waiting is not None and waiting.exchange > max(now.progress.offered, now.progress.applied):
            return  # it has forgotten an offer, and starts anew as soon as it hears of that
        enrolment = self._journal.known.members[member]
        progress = now.progress
        life = _life(now)
        round_, applied = self._said.get((member, life), (0, 0))
        same = life == (enrolment.incarnation, enrolment.initial)
        # On streams a round may be trained again: what was exchanged in it is in the log.
        as_far = progress.round >= round_ or self._config.exchange_plane == "stream"
        if same and as_far and progress.applied >= applied:
            del self._ghosts[member]
            self._replace(member, self._effective(member, now))

    def _replace(self, member: int, keys: Keys) -> None:
        counted = self._counted.get(member)
        if counted is not None:
            self._ledger.take_out(counted.keys)
            self._ledger.put_in(keys)
            self._counted[member] = _Counted(counted.life, keys)

    def _check_start(self, member: int, now: _Counted) -> None:
        state = self._ghosts.get(member) or self._devices[member].state()
        if state is not None and state.progress.round == state.progress.offered == 0:
            self._demand(
                now.keys == self._starts.get(now.life[1]),
                f"member {member} does not start with the weights that it was given",
            )

    def _check_lineage(self, member: int, before: State, now: State) -> None:
        """Check that an exchange is applied once: along one life their numbers only grow."""
        a, b = before.progress, now.progress
        if _life(before) == _life(now):
            self._demand(a.round <= b.round and a.applied <= b.applied, f"member {member} goes back in time")

    def _coordinates_of(self, exchange: int) -> list[int]:
        if exchange not in self._coordinates:
            self._coordinates[exchange] = self._draw.coordinates(exchange).tolist()
        return self._coordinates[exchange]

    @staticmethod
    def _demand(holds: bool, what: str) -> None:
        if not holds:
            raise Violation(what)


def _life(state: State) -> Life:
    return state.progress.incarnation, state.progress.initial
