"""The fleet of the bench of faults in the hands of hypothesis, which shrinks what it finds."""

import tempfile
from collections import Counter
from pathlib import Path

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

from tests.lab.search.planted import planted
from wash_fl.lab.search import walk
from wash_fl.lab.search.fleet import Fate, Fleet
from wash_fl.lab.search.setting import Setting
from wash_fl.lab.search.violation import Violation


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
            give_up_after=st.integers(1, 4),
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

    @rule(wait=st.booleans())
    def the_server_goes_on(self, wait):
        self.fleet.wait(None if wait else 0.0)
        self.fleet.proceed()

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
            for _ in range(3):
                fleet.proceed()
                for place, fate in enumerate(fates):
                    if fleet.in_flight:
                        member = fleet.in_flight[0].member
                        fleet.light(member, kills.get(place) if number else None)
                        fleet.deliver(0, fate)
                        fleet.light(member, None)
                fleet.wait()
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
        what=st.sampled_from(["lose_disk", "rot_disk", "leave", "arrive", "arrive"]),
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
    "name", ["does not write an exchange down", "forgets what waits at a restart", "replies before it saves"]
)
def test_hypothesis_finds_a_planted_fault(name):
    with planted(name), pytest.raises(Violation):
        run_machine(examples=150)
