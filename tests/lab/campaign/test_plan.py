"""What happens to the runs of a campaign: drawn from the seed and the number, and everything in its turn."""

from collections import Counter

import pytest

from wash_fl.config import RunConfig
from wash_fl.core.recipes import resolve
from wash_fl.lab.campaign.plan import (
    DISK,
    MEMBERS,
    MOST,
    NETWORK,
    PROCESSES,
    QUIET_SECONDS,
    SERVER_FILES,
    Disturbance,
    Kind,
    Plan,
    plan_of,
)

MANY = [plan_of(0, number) for number in range(600)]
ALL = [each for plan in MANY for each in plan.disturbances]


def test_a_run_is_a_function_of_the_seed_and_its_number():
    assert plan_of(3, 17) == plan_of(3, 17)
    assert plan_of(3, 17) != plan_of(4, 17) and plan_of(3, 17).disturbances != plan_of(3, 18).disturbances


def test_everything_happens_on_both_planes_and_to_everybody():
    assert {(plan.plane, each.kind) for plan in MANY for each in plan.disturbances} == {
        (plane, kind) for plane in ("round", "stream") for kind in Kind
    }
    for kind in (Kind.KILL, Kind.PAUSE):
        targets = {each.target for each in ALL if each.kind is kind}
        assert targets == {each.removesuffix(" of a node") for each in PROCESSES}
    launchers = {each.member < 0 for each in ALL if each.target == "superexec"}
    assert launchers == {True, False}
    assert {each.member for each in ALL} == {-1, *range(MEMBERS)}
    assert {len(plan.disturbances) for plan in MANY} == set(range(1, MOST + 1))
    assert set(SERVER_FILES) < {each.target for each in ALL if each.kind is Kind.FLIP}


def test_what_is_on_the_server_happens_there_and_the_rest_to_a_device():
    for each in ALL:
        on_server = each.target in (*SERVER_FILES, "superlink", "serverapp")
        assert (each.member == -1) == (on_server or (each.target == "superexec" and each.member == -1))
        if each.kind in (*NETWORK, *DISK):
            assert each.member in range(MEMBERS) and not each.target


def test_processes_stand_still_for_20_to_90_seconds_before_the_run_is_over():
    pauses = [each.seconds for each in ALL if each.kind is Kind.PAUSE]
    assert 20 <= min(pauses) < 25 and 85 < max(pauses) <= 90
    for plan in MANY:
        assert all(0 <= each.after <= plan.options["rounds"] for each in plan.disturbances)


def test_logs_of_the_stream_plane_are_flipped_there_only():
    planes = Counter(
        plan.plane for plan in MANY for each in plan.disturbances if each.target == "exchanges.*"
    )
    assert planes.keys() == {"stream"}


def test_options_are_those_of_a_run():
    for plan in MANY[:60]:
        config = resolve(RunConfig.from_mapping(dict(plan.options)), divided=False)
        assert config.exchange.streams == (plan.plane == "stream")


def test_what_cannot_happen_here_is_left_out_and_the_rest_of_a_run_is_what_it_was():
    kinds = [kind for kind in Kind if kind not in (*NETWORK, *DISK)]
    for plan in MANY:
        rest = plan_of(0, plan.number, kinds)
        assert rest.options == plan.options
        assert rest.disturbances == tuple(each for each in plan.disturbances if each.kind in kinds)


def test_the_limit_grows_with_what_happens():
    def limit(*disturbances: Disturbance) -> float:
        return Plan(0, "round", {}, disturbances).limit

    pause = Disturbance(Kind.PAUSE, "clientapp", 1, 1, 0.0, 50.0)
    kill = Disturbance(Kind.KILL, "superlink", -1, 1, 0.0, 0.0)
    assert limit() == QUIET_SECONDS
    assert limit(kill) > limit(pause) > limit()
    assert limit(pause, kill) - limit(pause) == pytest.approx(limit(kill) - limit())


def test_a_disturbance_is_said_in_words():
    assert str(Disturbance(Kind.PAUSE, "supernode", 2, 1, 3.21, 44.4)) == (
        "pause supernode (member 2) 3.2 s after round 1 for 44 s"
    )
    assert str(Disturbance(Kind.FLIP, "config.toml", -1, 0, 0.0, 0.0)) == (
        "flip config.toml (server) 0.0 s after round 0"
    )
