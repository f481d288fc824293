"""Fleets whose offers travel in fewer bytes: the sum over the members stays, and the trainer agrees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord

from wash_fl.config import ExchangeConfig, RunConfig
from wash_fl.core.codec import delivery_dtype, encoded_size
from wash_fl.core.draw import Draw
from wash_fl.core.dtypes import DTYPES
from wash_fl.core.schedule import Schedule
from wash_fl.flower.in_process import Fault, InProcessGrid, no_fault
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.member.parameters import model_layout
from wash_fl.runs.folder import RunFolder
from wash_fl.runs.job import run_job

from fleet import Fleet, make_model, random_faults

ROUNDS = 5
EVERY = pytest.mark.parametrize("dtype", list(DTYPES))
MIXES: dict[str, dict[str, Any]] = {
    "pairs": {"mix": "shuffle"},
    "permutation": {"mix": "shuffle", "topology": "permutation"},
    "average": {"mix": "average"},
    "average in pairs": {"mix": "average", "topology": "pairs"},
    "shuffle, then average": {"mix": "shuffle", "average_from": 0.5},
    "permutation, then average": {"mix": "shuffle", "topology": "permutation", "average_from": 0.5},
}
EACH_MIX = pytest.mark.parametrize("mix", MIXES)


def exchange_of(dtype: str, mix: str, **options: Any) -> ExchangeConfig:
    return ExchangeConfig(p=0.5, schedule="constant", dtype=dtype, **MIXES[mix], **options)


@EVERY
@EACH_MIX
@pytest.mark.parametrize("fault", [no_fault, random_faults(0)], ids=["all goes well", "messages are lost"])
def test_the_sum_over_the_members_stays_whatever_is_lost(
    tmp_path: Path, dtype: str, mix: str, fault: Fault
) -> None:
    fleet = Fleet(tmp_path, members=5, exchange=exchange_of(dtype, mix), rounds=ROUNDS, fault=fault)

    fleet.run()

    trained = sorted({member for member, _ in fleet.trained})
    assert sorted(fleet.collected) == trained
    before, after = fleet.own_values()[trained], fleet.values()
    drift = np.abs(after.sum(axis=0, dtype=np.float64) - before.sum(axis=0, dtype=np.float64))
    # An exchange rounds each member's values to float32 up to three times, and none is beyond 8. A single
    # step of int8 is hundreds of times larger than all of that together.
    assert drift.max() <= ROUNDS * 3 * len(trained) * 2.0**-24 * 8
    assert (after != before).mean() > 0.5
    if dtype == "float32" and "average" not in mix:
        assert np.array_equal(np.sort(after, axis=0), np.sort(before, axis=0))


@EVERY
@EACH_MIX
def test_the_bytes_that_travel_are_those_of_the_dtype(tmp_path: Path, dtype: str, mix: str) -> None:
    exchange = exchange_of(dtype, mix, exchange_optimizer=True)
    fleet = Fleet(tmp_path, exchange=exchange)
    strategy = fleet.strategy()
    strategy.start(fleet.grid, ArrayRecord(make_model().state_dict()), num_rounds=6, timeout=1.0)
    draw = Draw(3, model_layout(make_model(), ("momentum_buffer",)), Schedule(exchange, 6, 1))
    counts = [draw.count(number) for number in range(1, 7)]
    for member in range(4):
        assert strategy.traffic.up[member].values == sum(encoded_size(dtype, 2, each) for each in counts)
        down = [delivery_dtype(draw.schedule.options_at(number)) for number in range(1, 7)]
        sizes = [encoded_size(each, 2, count) for each, count in zip(down, counts, strict=True)]
        assert strategy.traffic.down[member].values == sum(sizes)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"dtype": "float16"},
        {"dtype": "int8"},
        {"dtype": "int8", "topology": "permutation"},
        {"dtype": "int8", "mix": "average"},
        {"dtype": "float32", "mix": "average", "topology": "pairs"},
        {"dtype": "int8", "mix": "average", "topology": "pairs", "exchange-optimizer": True},
        {"dtype": "int8", "average-from": 0.5},
        {"dtype": "int8", "exchange-optimizer": True},
        {"dtype": "int4"},
        {"dtype": "int3", "topology": "permutation"},
        {"dtype": "int2", "mix": "average"},
        {"dtype": "float32", "memory-format": "channels-last"},
        {
            "dtype": "float32",
            "memory-format": "channels-last",
            "exchange-optimizer": True,
            "batchnorm": "server",
        },
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
@pytest.mark.usefixtures("only_trained")
def test_a_fleet_gives_the_weights_of_the_trainer_in_about_the_bytes_of_the_dtype(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    config = RunConfig.from_mapping(
        {
            "members": 3,
            "rounds": 4,
            "local-steps": 2,
            "p": 0.3,
            "mix": "shuffle",
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
    summary = RunFolder.open(tmp_path / "one").summary()
    assert summary["weights_sha256"] == trainer.run().sha256
    draw = trainer.members[0].draw
    values = 3 * len(draw.layout.slots) * sum(draw.count(number) for number in range(1, 5))
    bits = {"float32": 32, "int8": 8 + 1 / 8, "int4": 4.25, "int3": 3.25, "int2": 2.25}
    up, down = (
        bits.get(each, 16) for each in (config.exchange.dtype, delivery_dtype(trainer.config.exchange))
    )
    # Above that only what the last block of a slot needs, which has fewer values.
    assert values * up / 8 <= summary["bytes"]["up_values"] <= values * up / 8 * 1.02
    assert values * down / 8 <= summary["bytes"]["down_values"] <= values * down / 8 * 1.02
