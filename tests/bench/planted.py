"""Faults to plant in the real code: each loses or makes values in some rare case."""

from contextlib import ExitStack
from dataclasses import replace
from unittest import mock

from wash_fl.bench.fault_fleet import disk, server
from wash_fl.core import escrow as core_escrow
from wash_fl.core.escrow import Escrow
from wash_fl.core.journal import MemoryJournal
from wash_fl.core.packet import Direction, decode
from wash_fl.core.sqlite_journal import SqliteJournal
from wash_fl.member.durable import DurableMember
from wash_fl.member.member import Member
from wash_fl.planes.roster import Roster


class JournalsTooLate(Escrow):
    """Writes an exchange down when the next one is settled, after its deliveries were sent."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._kept = self._journal
        self._unwritten = None
        self._journal = mock.Mock(wraps=self._kept)
        self._journal.settled = self._keep
        self._journal.acknowledged = lambda member, applied: (
            None
            if self._unwritten and member in self._unwritten[1]
            else self._kept.acknowledged(member, applied)
        )

    def _keep(self, exchange, deliveries, offers, acknowledged):
        self._unwritten = exchange, deliveries, offers

    def settle(self):
        if self._unwritten is not None:
            exchange, deliveries, offers = self._unwritten
            waiting = {
                member: each for member, each in deliveries.items() if self._pending.get(member) is each
            }
            self._kept.settled(exchange, waiting, offers)
        return super().settle()


class ForgetsWhatWaits(Escrow):
    """Does not restore the deliveries that wait."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._pending = {}


class BelievesAnyReply(Escrow):
    """Takes every reply for an acknowledgement of what waits."""

    def acknowledge(self, member, applied, *, lazily=False):
        super().acknowledge(member, self.settled, lazily=lazily)


class TakesLateOffers(Escrow):
    """Counts an offer of an exchange before for the one that is open, if it fits."""

    def offer(self, member, exchange, values):
        if self._open and values.shape[1] == self._draw.count(self._open):
            exchange = self._open
        return super().offer(member, exchange, values)


class ReplacesWhatWaits(Escrow):
    """Takes an offer of a member that has not applied what it was given."""

    def offer(self, member, exchange, values):
        if self._pending.pop(member, None) is not None:
            self._journal.released(member)
        return super().offer(member, exchange, values)


class KeepsOffersOfTheReleased(Escrow):
    """Mixes the offer of a member that was given up meanwhile."""

    def release(self, member):
        self._journal.released(member)
        self._pending.pop(member, None)


def escrow(kind):
    return mock.patch.object(server, "Escrow", kind)


def applies_twice():
    deliver = Member.deliver

    def again(self, exchange, values):
        self.applied = min(self.applied, exchange - 1)
        return deliver(self, exchange, values)

    return mock.patch.object(Member, "deliver", again)


def trains_between_offer_and_verdict():
    train = DurableMember.train

    def again(self, number, delivery, work, seconds=0.0):
        kept = self._store.load()
        if kept is not None and kept.progress.round == number:
            self._store.save(replace(kept, progress=kept.progress.after(round=number - 1)))
        return train(self, number, delivery, work, seconds)

    return mock.patch.object(DurableMember, "train", again)


def replies_before_it_saves():
    save = disk.Disk.save

    def sometimes(self, snapshot, *, anew=False):
        if snapshot.progress.round % 3 or not snapshot.progress.round:
            save(self, snapshot, anew=anew)

    return mock.patch.object(disk.Disk, "save", sometimes)


def overwrites_its_only_state():
    def save(self, snapshot, *, anew=False):
        torn = {name: each.clone() for name, each in snapshot.model.items()}
        torn["a"][:2] = 0.0
        self.previous, self.current = self.current, replace(snapshot, model=torn)
        self.changes += 1
        self._fuse.burn("while writing its state")
        self.current = snapshot
        self.changes += 1

    return mock.patch.object(disk.Disk, "save", save)


def records_half_of_a_settled_exchange():
    stack = ExitStack()
    for kind in (SqliteJournal, MemoryJournal):
        settled = kind.settled

        def half(self, exchange, deliveries, offers, acknowledged, *, settled=settled):
            settled(self, exchange, dict(list(deliveries.items())[:-1]), offers, acknowledged)

        stack.enter_context(mock.patch.object(kind, "settled", half))
    return stack


def releases_before_it_writes():
    def drop(self, member, standing, reason):
        self._escrow.release(member)
        self._write(member, replace(self._enrolments[member], standing=standing, reason=reason))

    return mock.patch.object(Roster, "drop", drop)


def overlooks_that_a_member_fell_back():
    real = Roster.astray
    return mock.patch.object(
        Roster, "astray", lambda self, member, says: real(self, member, replace(says, applied=2**62))
    )


def applies_what_it_never_offered_for():
    def deliver(self, packet, member, progress, offer):
        if not packet:
            return False
        delivery = decode(
            packet,
            direction=Direction.DELIVERY,
            run=self._run,
            layout=member.layout,
            member=member.index,
            count=member.draw.count,
        )
        return member.deliver(delivery.exchange, delivery.values)

    return mock.patch.object(DurableMember, "_deliver", deliver)


def overlooks_a_flipped_bit():
    stack = ExitStack()
    stack.enter_context(mock.patch("wash_fl.core.packet._checksum", lambda message: message.checksum))
    return stack


def doubles_a_value():
    return mock.patch.object(core_escrow, "mix", lambda offers, **options: [offers[0], *offers[:-1]])


PLANTED = {
    "journals too late": lambda: escrow(JournalsTooLate),
    "forgets what waits at a restart": lambda: escrow(ForgetsWhatWaits),
    "believes any reply": lambda: escrow(BelievesAnyReply),
    "takes late offers": lambda: escrow(TakesLateOffers),
    "replaces what waits": lambda: escrow(ReplacesWhatWaits),
    "keeps offers of the released": lambda: escrow(KeepsOffersOfTheReleased),
    "applies twice": applies_twice,
    "trains between offer and verdict": trains_between_offer_and_verdict,
    "replies before it saves": replies_before_it_saves,
    "overwrites its only state": overwrites_its_only_state,
    "records half of a settled exchange": records_half_of_a_settled_exchange,
    "releases before it writes": releases_before_it_writes,
    "overlooks that a member fell back": overlooks_that_a_member_fell_back,
    "applies what it never offered for": applies_what_it_never_offered_for,
    "overlooks a flipped bit": overlooks_a_flipped_bit,
    "doubles a value": doubles_a_value,
}
WITHIN = 300
"""Examples; most are found within ten."""
