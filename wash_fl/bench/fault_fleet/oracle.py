"""What every member should hold, and whether the fleet holds it.

A member *effectively* holds what its state on disk says, except at the coordinates of a waiting delivery
that it has not applied: there it holds the delivery's (docs/protocol.md, section 7). Per coordinate the
multiset of effective values over the members that count is conserved. Only this changes it:

- a member trains: its values before leave the multiset, those after enter it;
- a member starts or starts anew: a copy of its donor's values enters;
- a member is given up or set aside, or starts anew: what it held effectively leaves.

A member whose disk is lost or went back goes on counting as what it was, a *ghost*, until the server has
noticed, or until it is as far again as it ever said it was, with no offer of the ghost's before the escrow:
what the ghost has offered is what counts there, whatever its member has learned meanwhile.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wash_fl.bench.fault_fleet.device import Device, Held, Run, held_in
from wash_fl.bench.fault_fleet.journal import WatchedJournal
from wash_fl.bench.fault_fleet.messages import Reply, Request, Status, Weights
from wash_fl.core.draw import Draw
from wash_fl.core.identity import weights_sha256
from wash_fl.core.journal import Delivery, Standing
from wash_fl.member.snapshot import Snapshot

Keys = list[int]
"""One number per coordinate: the bits of the values of all slots there."""


Life = tuple[int, str]
"""A start: its number, and the hash of the weights."""


class Violation(AssertionError):  # noqa: N818 (it is a finding, not a failure of the bench)
    """Something that must hold does not."""


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
    journal : WatchedJournal
        The server's.
    offered : callable
        Returns the members whose offers a server holds, in an exchange that is open.
    """

    def __init__(
        self,
        run: Run,
        draw: Draw,
        devices: Sequence[Device],
        journal: WatchedJournal,
        offered: Callable[[], Collection[int]],
    ) -> None:
        self._slots = len(run.layout.slots)
        self._draw = draw
        self._devices = devices
        self._journal = journal
        self._offered = offered
        self._columns: list[Keys] = [[] for _ in range(run.layout.size)]
        self._counted: dict[int, _Counted] = {}
        self._ghosts: dict[int, Snapshot] = {}
        self._starts: dict[str, Keys] = {}
        self._seen: dict[int, Snapshot | None] = {}
        self._said: dict[tuple[int, Life], tuple[int, int]] = {}
        self._looked: tuple[int, list[int]] | None = None
        self._cache: dict[int, tuple[Snapshot, Delivery | None, Keys]] = {}
        self._coordinates: dict[int, list[int]] = {}

    @property
    def counting(self) -> set[int]:
        """The members that count."""
        return set(self._counted)

    @property
    def sound(self) -> set[int]:
        """Those of them whose disks have what they should."""
        return self.counting - self._ghosts.keys()

    def starting(self, weights: Weights) -> None:
        """Take note of weights that members are given to start from."""
        flat = np.concatenate([np.asarray(each, dtype=np.float32) for each in weights.values()])
        held = np.zeros((self._slots, flat.size), np.float32)
        held[0] = flat
        self._starts[weights_sha256(weights)] = _keys(held)

    def training(self, member: int, held: Held) -> None:
        """Check what a member begins to train with: what it effectively holds, every delivery applied."""
        if member in self._counted and member not in self._ghosts:
            self._demand(
                _keys(held) == self._counted[member].keys,
                f"member {member} trains on values that are not what it effectively holds",
            )

    def handled(self, member: int, request: Request, reply: Reply | None) -> None:
        """Take note of what a member has done, as far as it reached its disk, and check."""
        device = self._devices[member]
        before, now = self._seen.get(member), device.disk.whole()
        self._seen[member] = now
        if now is not None and before is not None and now is not before:
            self._check_lineage(member, before, now)
            trained = device.trained
            if trained is not None and now.progress.round == trained[0] and member not in self._ghosts:
                self._replace(member, _keys(trained[1]))
        if now is not None and reply is not None and reply.status is Status.DONE:
            life = _life(now)
            round_, applied = self._said.get((member, life), (0, 0))
            self._said[member, life] = max(round_, reply.round), max(applied, reply.applied)
        self._lay(member, now)
        self.check(f"member {member} has handled a {request.kind} request")

    def losing(self, member: int) -> None:
        """Take note that a member's newest state is about to be lost."""
        newest = self._devices[member].disk.whole()
        if member in self._counted and member not in self._ghosts and newest is not None:
            self._ghosts[member] = newest

    def lost(self, member: int) -> None:
        """Take note that it is lost."""
        now = self._seen[member] = self._devices[member].disk.whole()
        self._lay(member, now)
        self.check(f"member {member} has lost its state")

    def check(self, when: str) -> None:
        """Compare what the members that count hold with what they should.

        Raises
        ------
        Violation
            If a value is missing, or there is one too many.
        """
        looked = (self._journal.writes, [device.disk.changes for device in self._devices])
        if looked == self._looked:
            return
        self._looked = looked
        found = {
            member: counted
            for member in range(len(self._devices))
            if (counted := self._look(member)) is not None
        }
        for member in self._counted.keys() | found.keys():
            before, now = self._counted.get(member), found.get(member)
            if before is not None and (now is None or before.life != now.life):
                self._take_out(before.keys)
            if now is not None and (before is None or before.life != now.life):
                self._check_start(member, now)
                self._put_in(now.keys)
        self._counted = found
        held: list[Keys] = [
            sorted(column) for column in zip(*(each.keys for each in found.values()), strict=True)
        ]
        should = [sorted(column) for column in self._columns] if found else []
        if held != should:
            places = [place for place, (a, b) in enumerate(zip(held, should, strict=True)) if a != b]
            raise Violation(f"{when}: members {sorted(found)} do not hold what they should at {places}")

    def collected(self, weights: Mapping[int, Weights]) -> None:
        """Check that the members that were collected hold together all there should be, to the bit."""
        self.check("the members are collected")
        self._demand(bool(weights) or not self._counted, "nobody was collected")
        self._demand(set(weights) == self.counting, f"collected {set(weights)}, and {self.counting} count")
        rows = [np.concatenate(list(each.values())).view(np.uint32).tolist() for each in weights.values()]
        held = [sorted(column) for column in zip(*rows, strict=True)]
        should = [sorted(key & 0xFFFFFFFF for key in column) for column in self._columns] if rows else []
        self._demand(held == should, "the models that were handed in do not hold what they should")

    def _look(self, member: int) -> _Counted | None:
        """Return what a member effectively holds, if it counts."""
        known = self._journal.known
        enrolment = known.members.get(member)
        if enrolment is None or enrolment.standing is not Standing.ACTIVE:
            self._ghosts.pop(member, None)
            return None
        for state in (self._ghosts.get(member), self._devices[member].disk.whole()):
            if state is not None:
                if _life(state) == (enrolment.incarnation, enrolment.initial):
                    return _Counted(_life(state), self._effective(member, state))
                self._ghosts.pop(member, None)
        return None

    def _effective(self, member: int, state: Snapshot) -> Keys:
        delivery = self._journal.known.pending.get(member)
        if delivery is not None and delivery.exchange <= state.progress.applied:
            delivery = None
        cached = self._cache.get(member)
        if cached is not None and cached[0] is state and cached[1] is delivery:
            return cached[2]
        keys = _keys(held_in(state, self._slots))
        if delivery is not None:
            places = self._coordinates_of(delivery.exchange)
            for place, key in zip(places, _keys(delivery.values), strict=True):
                keys[place] = key
        self._cache[member] = state, delivery, keys
        return keys

    def _lay(self, member: int, now: Snapshot | None) -> None:
        """Let a ghost rest if its member is as far as it ever said it was: then nobody misses anything."""
        if now is None or member not in self._ghosts or member in self._offered():
            return
        enrolment = self._journal.known.members[member]
        progress = now.progress
        life = _life(now)
        round_, applied = self._said.get((member, life), (0, 0))
        same = life == (enrolment.incarnation, enrolment.initial)
        if same and progress.round >= round_ and progress.applied >= applied:
            del self._ghosts[member]
            self._replace(member, self._effective(member, now))

    def _replace(self, member: int, keys: Keys) -> None:
        counted = self._counted.get(member)
        if counted is not None:
            self._take_out(counted.keys)
            self._put_in(keys)
            self._counted[member] = _Counted(counted.life, keys)

    def _check_start(self, member: int, now: _Counted) -> None:
        state = self._ghosts.get(member) or self._devices[member].disk.whole()
        if state is not None and state.progress.round == 0:
            self._demand(
                now.keys == self._starts.get(now.life[1]),
                f"member {member} does not start with the weights that it was given",
            )

    def _check_lineage(self, member: int, before: Snapshot, now: Snapshot) -> None:
        """Check that an exchange is applied once: along one life their numbers only grow."""
        a, b = before.progress, now.progress
        if _life(before) == _life(now):
            self._demand(a.round <= b.round and a.applied <= b.applied, f"member {member} goes back in time")

    def _coordinates_of(self, exchange: int) -> list[int]:
        if exchange not in self._coordinates:
            self._coordinates[exchange] = self._draw.coordinates(exchange).tolist()
        return self._coordinates[exchange]

    def _take_out(self, keys: Keys) -> None:
        for column, key in zip(self._columns, keys, strict=True):
            column.remove(key)

    def _put_in(self, keys: Keys) -> None:
        for column, key in zip(self._columns, keys, strict=True):
            column.append(key)

    @staticmethod
    def _demand(holds: bool, what: str) -> None:
        if not holds:
            raise Violation(what)


def _keys(held: Held) -> Keys:
    bits = np.ascontiguousarray(held, dtype=np.float32).view(np.uint32).astype(np.uint64)
    keys: Keys = (bits[0] if len(bits) == 1 else bits[0] | bits[1] << np.uint64(32)).tolist()
    return keys


def _life(state: Snapshot) -> Life:
    return state.progress.incarnation, state.progress.initial
