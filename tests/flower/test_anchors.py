"""Fleets of differences to an anchor: the sum stays, few bits go both ways, and the trainer agrees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message

from wash_fl.config import ExchangeConfig, RunConfig
from wash_fl.core.codec import encoded_size
from wash_fl.core.draw import Draw
from wash_fl.core.dtypes import DTYPES
from wash_fl.core.schedule import Schedule
from wash_fl.flower.in_process import Deliver, Fault, InProcessGrid, no_fault
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.member.encoding import read
from wash_fl.member.parameters import model_layout
from wash_fl.protocol.anchored import Anchored
from wash_fl.protocol.journal import Journal
from wash_fl.runs.folder import RunFolder
from wash_fl.runs.job import run_job
from wash_fl.storage.sqlite_store import SqliteStore

from fleet import Fleet, is_train, make_model, random_faults, round_of

ROUNDS = 8


def anchored(**options: Any) -> ExchangeConfig:
    return ExchangeConfig(
        **{"p": 0.5, "schedule": "constant", "mix": "average", "dtype": "int8", "reference": "anchor"}
        | options
    )


def restored(fleet: Fleet, exchange: ExchangeConfig) -> Any:
    """Return the server's anchor as its journal gives it back."""
    store = SqliteStore.read(fleet.folder / "journal.sqlite")
    layout = model_layout(make_model())
    first = np.zeros((1, layout.size), np.float32)
    draw = Draw(3, layout, Schedule(exchange, fleet.rounds, 1))
    found = Anchored(draw, exchange, Journal(store), first).anchor
    store.close()
    return found


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("fault", [no_fault, random_faults(0)], ids=["all goes well", "messages are lost"])
def test_members_and_error_add_up_to_the_same_whatever_is_lost(
    tmp_path: Path, dtype: str, fault: Fault
) -> None:
    exchange = anchored(dtype=dtype)
    fleet = Fleet(tmp_path, members=5, exchange=exchange, rounds=ROUNDS, fault=fault)

    fleet.run(journal=tmp_path / "journal.sqlite", keep_members=True)

    trained = sorted({member for member, _ in fleet.trained})
    assert sorted(fleet.collected) == trained
    server = restored(fleet, exchange)
    before, after = fleet.own_values()[trained], fleet.values()
    total = after.sum(axis=0, dtype=np.float64) + server.error[0]
    # Roundings of float32, of values below 8; a step of int8 is hundreds of times larger than all of them.
    assert np.abs(total - before.sum(axis=0, dtype=np.float64)).max() <= ROUNDS * 8 * 5 * 2.0**-24 * 8
    assert (after != before).mean() > 0.5
    if dtype != "float32":
        assert np.abs(server.error).max() > 0
    for path in fleet.state_files():
        anchor = read(path).anchor
        assert anchor is not None and anchor.values.tobytes() == server.values.tobytes()
        assert anchor.chain == server.chain


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_both_directions_have_the_bytes_of_the_dtype(tmp_path: Path, dtype: str) -> None:
    exchange = anchored(dtype=dtype, exchange_optimizer=True)
    fleet = Fleet(tmp_path, exchange=exchange)
    strategy = fleet.strategy()
    strategy.start(fleet.grid, ArrayRecord(make_model().state_dict()), num_rounds=6, timeout=1.0)
    draw = Draw(3, model_layout(make_model(), ("momentum_buffer",)), Schedule(exchange, 6, 1))
    values = sum(encoded_size(dtype, 2, draw.count(number)) for number in range(1, 7))
    for member in range(4):
        assert strategy.traffic.up[member].values == strategy.traffic.down[member].values == values


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float32"},
        {"dtype": "int8"},
        {"dtype": "int8", "outer-learning-rate": 0.7, "outer-momentum": 0.5},
        {"dtype": "bfloat16", "exchange-optimizer": True, "outer-momentum": 0.5},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
@pytest.mark.usefixtures("only_trained")
def test_a_fleet_gives_the_weights_of_the_trainer(tmp_path: Path, options: dict[str, Any]) -> None:
    config = RunConfig.from_mapping(
        {
            "members": 3,
            "rounds": 4,
            "local-steps": 2,
            "p": 0.3,
            "reference": "anchor",
            "train-examples": 200,
            "test-examples": 50,
            "run-name": "one",
            "run-dir": str(tmp_path),
            **options,
        }
    )
    from clients.client_app import app

    clients = {**config.to_mapping(), "state-dir": str(tmp_path / "states")}
    run_job(InProcessGrid(app, 3, clients), config)
    trainer = Trainer(config)
    assert RunFolder.open(tmp_path / "one").summary()["weights_sha256"] == trainer.run().sha256


def away(member_away: int, rounds: range) -> Fault:
    """Let a member be without a request in some rounds."""

    def fault(member: int, request: Message, deliver: Deliver) -> list[Message]:
        if is_train(request) and member == member_away and round_of(request) in rounds:
            return []
        return deliver(request)

    return fault


@pytest.mark.parametrize("p, whole", [(0.1, False), (1.0, True)])
def test_a_member_that_was_away_catches_up_before_it_offers_again(
    tmp_path: Path, p: float, *, whole: bool
) -> None:
    exchange = anchored(p=p)
    fleet = Fleet(tmp_path, exchange=exchange, rounds=9, fault=away(2, range(3, 9)))
    strategy = fleet.strategy(journal=tmp_path / "journal.sqlite", keep_members=True)
    fleet.start(strategy)
    server = restored(fleet, exchange)
    assert len(fleet.state_files()) == 4
    for path in fleet.state_files():
        anchor = read(path).anchor
        assert anchor is not None and anchor.values.tobytes() == server.values.tobytes()
    draw = Draw(3, model_layout(make_model()), Schedule(exchange, 9, 1))
    each = [encoded_size("int8", 1, draw.count(number)) for number in range(1, 10)]
    size = 4 * draw.layout.size
    # Lost are the requests of rounds 3 to 8; that of round 9 has the delivery of round 2 and what it missed.
    expected = sum(each[:2]) + (size if whole else sum(each[2:8])) + each[8]
    assert strategy.traffic.down[2].values == expected


def test_who_joins_late_gets_the_anchor_with_the_weights(tmp_path: Path) -> None:
    exchange = anchored()
    fleet = Fleet(tmp_path, exchange=exchange, rounds=6, min_members=2)
    fleet.grid.offline = {3}
    fleet.on_round = lambda report: fleet.grid.offline.discard(3) if report.round == 3 else None
    fleet.run(journal=tmp_path / "journal.sqlite", keep_members=True)
    server = restored(fleet, exchange)
    assert sorted(fleet.collected) == [0, 1, 2, 3]
    (late,) = (
        path for path in fleet.state_files() if "member-3" in str(path) and "previous" not in str(path)
    )
    snapshot = read(late)
    assert snapshot.progress.joined >= 3 and snapshot.anchor is not None
    assert snapshot.anchor.values.tobytes() == server.values.tobytes()
    assert snapshot.anchor.chain == server.chain
