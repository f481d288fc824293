"""The bench of faults: no value is lost or made, and whatever would lose or make one is found.

Two drivers walk the same fleet: the bench's own dice, quick and by number, and hypothesis, which shrinks
what it finds.
"""

import json
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from typer.testing import CliRunner

from wash_fl.bench import faults
from wash_fl.bench.fault_fleet import disk, server, walk
from wash_fl.bench.fault_fleet.fleet import Fate, Fleet
from wash_fl.bench.fault_fleet.moments import Fuse, Killed
from wash_fl.bench.fault_fleet.oracle import Violation
from wash_fl.bench.fault_fleet.setting import Setting
from wash_fl.cli import app
from wash_fl.core import escrow as core_escrow
from wash_fl.core import run_packets
from wash_fl.core.escrow import Escrow
from wash_fl.core.journal import MemoryJournal
from wash_fl.core.packet import Direction, decode
from wash_fl.core.run_packets import RunPackets
from wash_fl.core.sqlite_journal import SqliteJournal
from wash_fl.errors import ConfigError
from wash_fl.member import durable
from wash_fl.member.durable import DurableMember
from wash_fl.member.member import Member
from wash_fl.planes.roster import Roster

KINDS = {
    *(f"{what} {fate}" for what in ("request", "reply") for fate in ("dropped", "delayed", "duplicated")),
    *("request corrupted", "reply corrupted", "reordered", "request repeated"),
    *("old offer replayed", "offer of another member"),
    *("disk lost", "state fell back"),
    *("member away", "member returned", "member joined late", "member given up"),
    *(f"member killed {when} training" for when in ("before", "while", "after")),
    *(f"member killed {when} writing its state" for when in ("before", "while", "after")),
    *("member killed before looking at a request", "member killed before replying"),
    "member killed between two renames",
    *(
        f"server killed {when} recording {what}"
        for when in ("before", "after")
        for what in ("a settled exchange", "an acknowledgement", "an enrolment", "a release")
    ),
    *("server killed before sending a request", "server killed after taking a reply"),
    *("server killed while collecting", "server killed between two steps"),
}


@pytest.fixture(scope="module")
def figures():
    return faults.run(300, workers=1)


def test_no_value_is_lost_or_made_whatever_goes_wrong(figures):
    assert figures["violations"] == 0, figures.get("violated")
    assert "violated" not in figures
    assert figures["examples"] == 300


def test_everything_that_can_go_wrong_did(figures):
    assert set(figures["faults"]) == KINDS
    assert min(figures["faults"].values()) >= 3, figures["faults"]
    json.dumps(figures)


def test_an_example_is_a_number_of_a_seed():
    def counts(**options):
        return faults.run(4, **options)["faults"]

    assert counts(seed=5) == counts(seed=5) != counts(seed=6)
    parts = [Counter(faults.run(2, seed=5, first=first)["faults"]) for first in (0, 2)]
    assert sum(parts, Counter()) == counts(seed=5)


@pytest.mark.slow
def test_several_processes_find_what_one_does(monkeypatch):
    alone = faults.run(24, seed=2)
    monkeypatch.setattr(faults, "FEW", 0)
    monkeypatch.setattr(faults, "PORTION", 12)
    together = faults.run(24, seed=2, workers=2)
    assert (alone["workers"], together["workers"]) == (1, 2)
    assert alone["faults"] == together["faults"]


@pytest.mark.parametrize(
    "options", [{"examples": -1}, {"examples": 1, "first": -1}, {"examples": 1, "workers": 0}]
)
def test_what_cannot_be_run_is_refused(options, refused):
    with refused(ConfigError, "examples"):
        faults.run(**options)


# On the command line


def test_the_command_prints_the_figures_as_json():
    said = CliRunner().invoke(app, ["bench", "faults", "--examples", "3", "--json"])
    found = json.loads(said.stdout)
    assert said.exit_code == 0
    assert (found["bench"], found["examples"], found["violations"]) == ("faults", 3, 0)
    assert sum(found["faults"].values()) > 10


def test_a_violation_is_a_status_other_than_0_and_says_how_to_see_it_again(monkeypatch):
    def broken(seed, example, folder, faults):
        if example in (8, 17):
            raise Violation("a value is gone\nfor good")

    monkeypatch.setattr(faults, "walk", broken)
    said = CliRunner().invoke(app, ["bench", "faults", "--examples", "20", "--seed", "3", "--json"])
    found = json.loads(said.stdout)
    assert said.exit_code == 1 and found["violations"] == 2
    assert found["violated"] == [
        f"example {example} of seed 3: Violation: a value is gone for good "
        f"(again: wash-fl bench faults --examples 1 --first {example} --seed 3)"
        for example in (8, 17)
    ]


@pytest.mark.parametrize("error", [RuntimeError("x"), Killed("somewhere"), ValueError()])
def test_whatever_ends_an_example_is_a_violation(monkeypatch, error):
    def broken(seed, example, folder, faults):
        raise error

    monkeypatch.setattr(faults, "walk", broken)
    figures = faults.run(2)
    assert figures["violations"] == 2
    assert all(type(error).__name__ in each for each in figures["violated"])


# Planted faults: each loses or makes values in some rare case, and is found


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


def test_requests_to_start_anew_that_overtake_one_another_are_noticed():
    # One in some thousand examples; these have it.
    assert faults.run(1, first=7598)["violations"] == 0
    assert faults.run(1, first=19426)["violations"] == 0
    real = Roster.astray

    def blind(self, member, says):
        known = self[member]
        return real(self, member, replace(says, initial=known.initial, incarnation=known.incarnation))

    with mock.patch.object(Roster, "astray", blind):
        assert faults.run(1, first=7598)["violations"] == 1
    start = DurableMember.start

    def follow(self, *args, incarnation=0, **options):
        """Start anew whenever asked to, however old the request is."""
        before = self._store.load()
        if before is not None and 0 < incarnation < before.progress.incarnation:
            self._store.remove()
        return start(self, *args, incarnation=incarnation, **options)

    with mock.patch.object(DurableMember, "start", follow):
        assert faults.run(1, first=19426)["violations"] == 1


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


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name):
    with PLANTED[name]():
        for first in range(0, WITHIN, 10):
            figures = faults.run(10, seed=3, first=first, workers=1)
            if figures["violations"]:
                break
    assert figures["violations"], f"not found in {WITHIN} examples"
    assert "Violation" in figures["violated"][0], figures["violated"]


# The same fleet in the hands of hypothesis


class Faulty(RuleBasedStateMachine):
    """Every single thing that can happen to a fleet, in any order."""

    met: Counter

    @initialize(
        setting=st.builds(
            Setting,
            seed=st.integers(0, 2**63 - 1),
            members=st.integers(3, 5),
            late=st.integers(0, 1),
            topology=st.sampled_from(["pairs", "permutation"]),
            p=st.sampled_from([0.5, 1.0, 0.3]),
            optimizer=st.booleans(),
        )
    )
    def begin(self, setting):
        self._folder = tempfile.TemporaryDirectory()
        self.fleet = Fleet(setting, Path(self._folder.name))
        self.fleet.start_server()

    @rule()
    def the_server_is_started(self):
        self.fleet.start_server()

    @precondition(lambda self: self.fleet.server is None)
    @rule()
    def a_dead_server_is_started(self):
        self.fleet.start_server()

    @rule(moments=st.integers(0, 20))
    def the_server_is_to_die(self, moments):
        self.fleet.light(None, moments)

    @rule(all_=st.booleans())
    def requests_expire(self, all_):
        self.fleet.expire(all_=all_)

    @rule(fate=st.sampled_from(Fate))
    def newcomers_are_admitted(self, fate):
        self.fleet.asked = fate
        self.fleet.admit()

    @rule()
    def the_round_is_settled(self):
        self.fleet.settle()

    @rule(member=st.integers(0, 4))
    def a_member_is_asked_again(self, member):
        self.fleet.repeat(member)

    @rule(
        fates=st.lists(st.sampled_from([Fate.ARRIVES] * 9 + list(Fate)), min_size=12, max_size=12),
        kills=st.dictionaries(st.integers(0, 11), st.integers(0, 8), max_size=2),
        server_dies=st.sampled_from([None] * 6 + list(range(20))),
        rots=st.integers(0, 11),
    )
    def some_rounds(self, fates, kills, server_dies, rots):
        """The usual order, in which a run gets somewhere."""
        fleet = self.fleet
        for number in range(3):
            if fleet.server is None:
                fleet.start_server()
            if number == 1:
                fleet.light(None, server_dies)
            fleet.expire(all_=True)
            for step in (fleet.greet, fleet.admit, fleet.open):
                step()
                for place, fate in enumerate(fates):
                    if fleet.in_flight:
                        member = fleet.in_flight[0].member
                        fleet.light(member, kills.get(place) if number else None)
                        fleet.deliver(0, fate)
                        fleet.light(member, None)
            fleet.settle()
            if number == 1 and rots < len(fleet.devices):
                fleet.rot_disk(rots)

    @precondition(lambda self: self.fleet.in_flight)
    @rule(pick=st.integers(0, 99), fate=st.sampled_from(Fate), moments=st.none() | st.integers(0, 8))
    def a_message_meets_its_fate(self, pick, fate, moments):
        place = pick % len(self.fleet.in_flight)
        member = self.fleet.in_flight[place].member
        if moments is not None:
            self.fleet.light(member, moments)
        self.fleet.deliver(place, fate)
        self.fleet.light(member, None)

    @precondition(lambda self: self.fleet.in_flight)
    @rule(pick=st.integers(0, 99))
    def a_message_is_delayed(self, pick):
        self.fleet.delay(pick % len(self.fleet.in_flight))

    @precondition(lambda self: self.fleet.late)
    @rule(pick=st.integers(0, 99))
    def a_late_message_comes(self, pick):
        self.fleet.come_late(pick % len(self.fleet.late))

    @rule(pick=st.integers(0, 99), of_another=st.booleans())
    def an_offer_is_replayed(self, pick, of_another):
        self.fleet.replay(pick, of_another=of_another)

    @rule(
        member=st.integers(0, 4),
        what=st.sampled_from(["lose_disk", "rot_disk", "leave", "arrive", "give_up", "arrive"]),
    )
    def something_happens_to_a_member(self, member, what):
        if member < len(self.fleet.devices):
            getattr(self.fleet, what)(member)

    def teardown(self):
        """Whatever happened: what is collected at the end is what there should be."""
        if not hasattr(self, "fleet"):
            return
        try:
            self.fleet.finish()
        finally:
            self.met.update(self.fleet.faults)
            self.fleet.close()
            self._folder.cleanup()


def run_machine(*, examples, phases=(Phase.generate,)):
    Faulty.met = Counter()
    with walk.quiet():
        run_state_machine_as_test(
            Faulty,
            settings=settings(
                derandomize=True,
                database=None,
                deadline=None,
                max_examples=examples,
                stateful_step_count=20,
                phases=phases,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return Faulty.met


def test_hypothesis_finds_no_way_to_lose_or_make_a_value():
    met = run_machine(examples=100, phases=(Phase.generate, Phase.shrink))
    assert len(met) >= 25, met


@pytest.mark.parametrize(
    "name", ["applies twice", "forgets what waits at a restart", "replies before it saves"]
)
def test_hypothesis_finds_a_planted_fault(name):
    with PLANTED[name](), pytest.raises(Violation):
        run_machine(examples=150)


# Parts of the model


def test_a_fuse_kills_at_its_moment_and_only_once():
    fuse = Fuse()
    fuse.burn("a")
    fuse.light(1)
    fuse.burn("b")
    with pytest.raises(Killed, match="c"):
        fuse.burn("c")
    fuse.burn("d")
    fuse.light(0)
    fuse.light(None)
    fuse.burn("e")


def test_without_faults_everybody_exchanges_and_is_collected(tmp_path):
    fleet = Fleet(Setting(seed=1, members=4, p=1.0), tmp_path)
    fleet.start_server()
    for _ in range(3):
        for step in (fleet.greet, fleet.admit, fleet.open):
            step()
            while fleet.in_flight:
                fleet.deliver(0)
        fleet.settle()
    assert fleet.server.escrow.settled == 3
    assert sorted(fleet.journal.known.pending) == [0, 1, 2, 3]
    assert fleet.oracle.sound == {0, 1, 2, 3}
    assert sum(fleet.faults.values()) == 0
    fleet.finish()
    assert fleet.server.escrow.settled >= 3 and not fleet.journal.known.pending
    fleet.close()


def test_the_real_modules_are_under_test():
    assert server.Escrow is Escrow and server.Roster is Roster
    assert durable.RunPackets is RunPackets and server.RunPackets is RunPackets
    assert run_packets.decode is decode
