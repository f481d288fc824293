"""A whole run under faults: it completes, and every value is where it was or elsewhere, once."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import Result
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.faults import points
from wash_fl.faults.fault import NETWORK, ROUND_POINTS, SERVER_POINTS, Fault, Kind, Way
from wash_fl.faults.plan import FaultPlan
from wash_fl.flower.client import Round
from wash_fl.flower.faulty_grid import FaultyGrid

from fleet import Fleet, make_model, own_weights

ROUNDS = 5


def own_fractions(model: nn.Module, member: int) -> torch.Tensor:
    """Fractions of twelve bits, so that whole numbers can be added without any rounding."""
    own = own_weights(model, member) - member
    return torch.floor(own * 4096.0) / 4096.0


def count_rounds(model: nn.Module, member: int, now: Round) -> None:
    """Train: at first take on own fractions, in every later round add one to every value.

    A value's fraction says whose it was, its whole part how often it was trained: applied twice, a delivery
    would take back what was trained since.
    """
    values = nn.utils.parameters_to_vector(model.parameters())
    initial = [nn.utils.parameters_to_vector(make_model().parameters()), own_weights(model, member)]
    first = any(torch.equal(values, each) for each in initial)
    after = own_fractions(model, member) if first else values + 1.0
    nn.utils.vector_to_parameters(after, model.parameters())


def make_fleet(folder: Path, **options: Any) -> Fleet:
    return Fleet(folder, after_training=count_rounds, **options)


def run(fleet: Fleet, plan: FaultPlan, **options: object) -> Result:
    """Run a fleet under a plan; a server that is killed is started again, as often as it takes."""
    carrier = fleet.grid
    with points.installed(plan):
        while True:
            fleet.grid = FaultyGrid(carrier, plan)  # type: ignore[assignment]
            try:
                return fleet.run(journal=fleet.folder / "journal.sqlite", **options)
            except points.Killed:
                fleet.collected.clear()


def check_conserved(fleet: Fleet) -> None:
    """Check that every fraction is there once, and every round of training counted once."""
    trained = sorted({member for member, _ in fleet.trained})
    assert sorted(fleet.collected) == trained
    values = fleet.values()
    whole = np.floor(values)
    own = np.stack([own_fractions(make_model(), member).numpy() for member in trained])
    assert np.array_equal(np.sort(values - whole, axis=0), np.sort(own, axis=0))
    assert (whole.sum(axis=0) == len(set(fleet.trained)) - len(trained)).all()


def check_trained_once(fleet: Fleet) -> None:
    """Nobody trained twice for a round: a repeated request brings the saved offer."""
    assert max(Counter(fleet.trained).values()) == 1


def same(one: Result, other: Result) -> bool:
    return all(
        np.array_equal(array.numpy(), other.arrays[name].numpy()) for name, array in one.arrays.items()
    )


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("kind", NETWORK)
def test_a_single_fault_in_any_exchange_costs_no_value(tmp_path: Path, kind: Kind, way: Way) -> None:
    for exchange in range(1, ROUNDS + 1):
        for by in (1, 9) if kind is Kind.DELAY else (1,):
            fleet = make_fleet(tmp_path / f"{exchange}-{by}", rounds=ROUNDS)
            plan = FaultPlan([Fault(kind, 1, exchange, way, by=by)])
            run(fleet, plan)
            # In the first round there is no delivery yet that could be damaged.
            harmless = kind is Kind.CORRUPT and way is Way.REQUEST and exchange == 1
            assert plan.injected == ({} if harmless else {str(kind): 1})
            check_conserved(fleet)
            check_trained_once(fleet)


@pytest.mark.parametrize("topology", ["pairs", "permutation"])
@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_random_faults_of_the_network_cost_no_value(
    tmp_path: Path, seed: int, members: int, topology: str
) -> None:
    fleet = make_fleet(
        tmp_path,
        members=members,
        exchange=ExchangeConfig(p=0.5, mix="shuffle", schedule="constant", topology=topology),
        rounds=15,
    )
    plan = FaultPlan.random(seed, members, 15, rate=0.3)
    run(fleet, plan)
    assert sum(plan.injected.values()) >= len(plan.faults) / 2 > 2
    check_conserved(fleet)
    check_trained_once(fleet)


@pytest.mark.parametrize("point", SERVER_POINTS)
def test_a_server_killed_anywhere_and_started_again_gives_the_same_bits(tmp_path: Path, point: str) -> None:
    undisturbed = make_fleet(tmp_path / "undisturbed", rounds=4)
    expected = undisturbed.run()
    at_the_end = point in {"collected", "averaged"}
    for exchange in [None] if at_the_end else [1, 2, 4]:
        fleet = make_fleet(tmp_path / f"{exchange}", rounds=4)
        plan = FaultPlan([Fault(Kind.KILL, None, exchange, at=point)])
        result = run(fleet, plan)
        assert plan.injected == {"kill": 1}
        assert same(result, expected)
        check_conserved(fleet)
        check_trained_once(fleet)


def test_a_server_killed_again_and_again_among_other_faults_costs_no_value(tmp_path: Path) -> None:
    kills = "; ".join(
        f"kill server exchange={exchange} at={point}"
        for exchange in (1, 3, 4, 8)
        for point in ("sent", "offered", "settled")
    )
    network = FaultPlan.random(5, 4, 12, rate=0.3)
    plan = FaultPlan.parse(f"{kills}; kill server at=collected; kill server at=averaged; {network}")
    fleet = make_fleet(tmp_path, rounds=12)
    run(fleet, plan)
    assert plan.injected["kill"] == 14
    check_conserved(fleet)
    check_trained_once(fleet)


@pytest.mark.parametrize("point", ROUND_POINTS)
def test_a_member_killed_anywhere_answers_again_in_the_same_round(
    tmp_path: Path, point: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = make_fleet(tmp_path / "undisturbed", rounds=4).run()
    for exchange in (1, 2, 4):
        fleet = make_fleet(tmp_path / f"{exchange}", rounds=4)
        plan = FaultPlan([Fault(Kind.KILL, 2, exchange, at=point)])
        result = run(fleet, plan)
        assert plan.injected == {"kill": 1}
        assert same(result, expected)
        check_conserved(fleet)
        assert fleet.trained.count((2, exchange)) == (2 if point == "trained" else 1)


@pytest.mark.parametrize("seed", range(3))
def test_random_kills_of_members_and_other_faults_cost_no_value(tmp_path: Path, seed: int) -> None:
    fleet = make_fleet(tmp_path, rounds=15)
    plan = FaultPlan.random(seed, 4, 15, rate=0.4, kinds=list(Kind))
    run(fleet, plan)
    assert plan.injected["kill"] >= 2
    check_conserved(fleet)


def test_a_member_that_is_killed_in_every_round_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path, rounds=ROUNDS)
    run(fleet, FaultPlan.parse("kill member=3 at=asked times=always"))
    assert sorted(fleet.collected) == [0, 1, 2]
    check_conserved(fleet)


def test_what_was_injected_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("flwr").propagate = True
    fleet = make_fleet(tmp_path, rounds=2)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        run(fleet, FaultPlan.parse("drop reply member=1 exchange=2"))
    assert "injected: drop reply member=1 exchange=2" in caplog.text
