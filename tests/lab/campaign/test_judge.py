"""What is wrong with a disturbed run is seen, and what is right is let be."""

from dataclasses import replace

import pytest

from wash_fl.lab.campaign.judge import Outcome, must_be_equal, wrongs
from wash_fl.lab.campaign.plan import Disturbance, Kind, Plan

WELL = Outcome(seconds=100.0, by_itself=True, sha256="ab" * 32, undisturbed="ab" * 32, members=(0, 1, 2))


def plan(kind: Kind = Kind.PAUSE, target: str = "clientapp", plane: str = "round") -> Plan:
    return Plan(7, plane, {}, (Disturbance(kind, target, 1, 1, 0.0, 0.0),))


def test_a_run_that_came_out_well_is_right():
    assert wrongs(plan(), WELL) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"by_itself": False}, "did not end by itself"),
        ({"sha256": "cd" * 32}, "its weights are cdcdcdcdcdcd, and undisturbed abababababab"),
        ({"error": "no member joined."}, "ended with an error: no member joined."),
        ({"problems": ("a value is lost",)}, "audit: a value is lost"),
        ({"remains": ("process 7",)}, "left behind: process 7"),
    ],
)
def test_each_thing_that_is_wrong_is_said(changes, expected):
    (line,) = wrongs(plan(), replace(WELL, **changes))
    assert expected in line


@pytest.mark.parametrize(
    "changes", [{"members": (0, 1)}, {"absent": (2,)}, {"anew": (0,)}, {"error": "damaged"}]
)
def test_weights_may_be_others_if_somebody_was_missing(changes):
    outcome = replace(WELL, sha256="cd" * 32, **changes)
    assert not must_be_equal(plan(), outcome)


def test_on_the_stream_plane_a_death_costs_what_was_learned_since_and_a_pause_costs_nothing():
    assert must_be_equal(plan(plane="stream"), WELL)
    for kind in (Kind.KILL, Kind.FLIP, Kind.RETURN):
        assert not must_be_equal(plan(kind, plane="stream"), WELL)
        assert must_be_equal(plan(kind), WELL)


def test_only_a_bit_flipped_on_the_server_excuses_an_error_and_only_one_that_names_it():
    damage = replace(WELL, error="the journal is damaged (row 3).", problems=("the journal is damaged",))
    assert wrongs(plan(Kind.FLIP, "journal.sqlite*"), damage) == []
    assert len(wrongs(plan(Kind.FLIP, "state.safetensors"), damage)) == 2
    # The run had read the file before: its audit says what is wrong with it now, and must.
    late = replace(WELL, problems=("config.toml is not valid TOML: line 3.",))
    assert wrongs(plan(Kind.FLIP, "config.toml"), late) == []
    assert len(wrongs(plan(Kind.FLIP, "config.toml"), replace(late, problems=("a value is lost",)))) == 1
    crash = replace(WELL, error="KeyError: 3")
    assert wrongs(plan(Kind.FLIP, "journal.sqlite*"), crash) == ["it ended with an error: KeyError: 3"]
