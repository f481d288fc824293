"""Whatever would lose or make a value is found: by random walks, or by a story that leads to it."""

from dataclasses import replace
from unittest import mock

import pytest

from tests.bench.planted import PLANTED, WITHIN
from wash_fl.bench import faults
from wash_fl.bench.fault_fleet.fleet import Fate, Fleet
from wash_fl.bench.fault_fleet.oracle import Violation
from wash_fl.bench.fault_fleet.setting import Setting
from wash_fl.member.durable import DurableMember
from wash_fl.planes.roster import Roster


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name):
    with PLANTED[name]():
        for first in range(0, WITHIN, 10):
            figures = faults.run(10, seed=3, first=first, workers=1)
            if figures["violations"]:
                break
    assert figures["violations"], f"not found in {WITHIN} examples"
    assert "Violation" in figures["violated"][0], figures["violated"]


def arrive(fleet, *fates):
    """Let what is on its way arrive; what there is first meets the fates given."""
    for fate in fates:
        fleet.deliver(0, fate)
    while fleet.in_flight:
        fleet.deliver(0)


def returning(folder):
    """Return a fleet whose member 0 was given up, and is asked to start anew: the only message on its way.

    It gave its weights before, so that it has applied every delivery.
    """
    fleet = Fleet(Setting(seed=1, members=3, p=1.0), folder)
    fleet.start_server()
    for step in (fleet.greet, fleet.open):
        step()
        arrive(fleet)
    fleet.settle()
    for member in (2, 0):
        arrive(fleet)
        fleet.give_up(member)
        fleet.greet()
        arrive(fleet)
        fleet.admit()
    return fleet


def a_request_to_start_anew_is_lost(folder):
    fleet = returning(folder)
    arrive(fleet, Fate.DROPPED)
    fleet.expire(all_=True)
    return fleet


def a_request_to_start_anew_comes_after_the_next_one(folder):
    fleet = returning(folder)
    fleet.delay(0)
    fleet.start_server()
    for step in (fleet.greet, fleet.admit, fleet.open):
        step()
        arrive(fleet)
    fleet.come_late(0)
    arrive(fleet)
    fleet.settle()
    return fleet


def believes_any_start():
    real = Roster.astray

    def astray(self, member, says):
        known = self[member]
        return real(self, member, replace(says, initial=known.initial, incarnation=known.incarnation))

    return mock.patch.object(Roster, "astray", astray)


def starts_anew_whenever_asked_to():
    start = DurableMember.start

    def follow(self, *args, incarnation=0, **options):
        if incarnation and self._store.load() is not None:
            self._store.remove()
        return start(self, *args, incarnation=incarnation, **options)

    return mock.patch.object(DurableMember, "start", follow)


@pytest.mark.parametrize(
    ("story", "fault"),
    [
        (a_request_to_start_anew_is_lost, believes_any_start),
        (a_request_to_start_anew_comes_after_the_next_one, starts_anew_whenever_asked_to),
    ],
)
def test_requests_to_start_anew_are_told_apart(story, fault, tmp_path):
    # In random walks it takes some thousand examples.
    fleet = story(tmp_path / "as it is")
    fleet.finish()
    fleet.close()
    with fault(), pytest.raises(Violation):
        story(tmp_path / "with a fault").finish()


@pytest.mark.parametrize("example", [7598, 19426])
def test_what_was_a_violation_once_is_none_now(example):
    assert faults.run(1, first=example)["violations"] == 0
