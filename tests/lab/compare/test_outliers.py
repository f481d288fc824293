"""Honest members never stand out while they really train, however unequal their data and their pace."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wash_fl.config import RunConfig
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.protocol import escrow as room
from wash_fl.protocol.distances import ratios
from wash_fl.protocol.outliers import find_outliers
from wash_fl.tasks.task import load_task

FACTOR = 3.0

OPTIONS: dict[str, Any] = {
    "recipe": "none",
    "task": "digits",
    "members": 5,
    "rounds": 12,
    "local-steps": 6,
    "train-examples": 400,
    "test-examples": 100,
    "p": 0.1,
    "schedule": "constant",
    "division": "dirichlet",
    "alpha": 0.1,
}
TRAINING: dict[str, dict[str, Any]] = {
    "every member its own classes": {},
    "a large step": {"learning-rate": 0.5},
    "optimizer state": {"exchange-optimizer": True},
    "optimizer state, a large step": {"exchange-optimizer": True, "learning-rate": 0.5},
    "Adam's state": {"exchange-optimizer": True, "optimizer": "adam", "learning-rate": 0.01},
    "three members": {"members": 3, "exchange-optimizer": True, "learning-rate": 0.5},
    "seven coordinates": {"p": 0.0003, "local-steps": 1, "rounds": 60, "learning-rate": 0.5},
    "three coordinates of three": {"p": 0.0001, "members": 3, "local-steps": 1, "rounds": 60},
}
EVERY_TIME = ("every member its own classes", "Adam's state", "three coordinates of three")
"""One of each kind: of values, of an optimizer, of few coordinates. What is not here is marked `long`."""


class TenTimesFaster:
    """Training of a device that makes ten rounds' steps in each."""

    def __init__(self, training):
        self._training = training

    def run(self, *arguments, **options):
        return [self._training.run(*arguments, **options) for _ in range(10)][-1]

    def __getattr__(self, name):
        return getattr(self._training, name)


@pytest.mark.parametrize(
    "name", [each if each in EVERY_TIME else pytest.param(each, marks=pytest.mark.long) for each in TRAINING]
)
def test_no_member_that_really_trains_comes_near_the_limit(monkeypatch, name):
    """Not with data of one or two classes each, and one device ten times as fast as the others."""
    of_limit: list[float] = []

    def watched(offers, factor, exact, parts, grain):
        count = next(iter(offers.values())).shape[1] if offers else 0
        if count:
            found = ratios([offers[member] for member in sorted(offers)], parts)
            of_limit.append(float((found / (factor * parts.slack)).max()))
        return find_outliers(offers, factor, exact, parts, grain)

    monkeypatch.setattr(room, "find_outliers", watched)
    trainer = Trainer(RunConfig.from_mapping(OPTIONS | TRAINING[name]), load_task("digits"))
    assert trainer.config.fleet.outlier_factor == FACTOR
    trainer._training[1] = TenTimesFaster(trainer._training[1])
    for number in range(1, trainer.config.training.rounds + 1):
        trainer.round(number)
        assert trainer.settlement.aside == {}
    assert len(of_limit) > 10
    assert 0 < max(of_limit) < 0.5


def test_with_honest_members_the_average_is_the_one_without_the_rule(make_task):
    options = {"members": 4, "rounds": 4, "local-steps": 3, "batch-size": 8, "p": 0.3}
    found = {
        factor: Trainer(RunConfig.from_mapping(options | {"outlier-factor": factor}), make_task())
        .run()
        .sha256
        for factor in (0.0, FACTOR)
    }
    assert found[0.0] == found[FACTOR]


def test_the_trainer_goes_on_without_a_member_that_is_set_aside(make_task):
    options = {"members": 4, "rounds": 3, "local-steps": 2, "batch-size": 8, "p": 0.5, "schedule": "constant"}
    trainer = Trainer(RunConfig.from_mapping(options), make_task())
    trainer.round(1)
    member = trainer.members[2]
    honest_offer = member.offer
    member.offer = lambda number: honest_offer(number) * np.float32(100)
    losses = trainer.round(2)
    assert list(trainer.settlement.aside) == [2] and sorted(losses) == [0, 1, 2, 3]
    losses = trainer.round(3)
    third = trainer.settlement
    assert third == replace(third, members=(0, 1, 3), aside={}) and sorted(losses) == [0, 1, 3]
    assert list(trainer.aside) == [2]
    assert sorted(trainer.finish().members) == [0, 1, 3]
