"""From an averaged state dict to numbers: each is of the model its name says."""

from typing import Any

import numpy as np
import pytest
import torch

from wash_fl.config import RunConfig
from wash_fl.consensus.evaluate import accuracy, logits_of
from wash_fl.consensus.finish import Evaluator
from wash_fl.core.identity import weights_sha256
from wash_fl.errors import DataError
from wash_fl.tasks import initial_model


def weights_of(task: Any, seed: int) -> dict[str, np.ndarray]:
    model = initial_model("default", task, seed)
    return {name: each.numpy().copy() for name, each in model.state_dict().items()}


def test_the_outcome_has_the_accuracy_of_each_model_and_members_in_order(make_task):
    task = make_task(test=50)
    evaluator = Evaluator(task, RunConfig())
    members = {index: weights_of(task, index) for index in (3, 0, 2)}
    for index, weights in members.items():
        evaluator.add_member(index, weights)
    before, after = weights_of(task, 7), weights_of(task, 8)
    evaluator.add_average(before)
    outcome = evaluator.outcome(after)

    def accuracy_of(weights: dict[str, np.ndarray]) -> float:
        return accuracy(logits_of(evaluator.model(weights), evaluator.inputs), evaluator.targets)

    assert list(outcome.members) == [0, 2, 3]
    assert outcome.members == {index: accuracy_of(weights) for index, weights in members.items()}
    assert len({outcome.averaged, outcome.recalibrated, *outcome.members.values()}) > 2, "can be told apart"
    assert (outcome.averaged, outcome.recalibrated) == (accuracy_of(before), accuracy_of(after))
    assert outcome.mean_member == pytest.approx(np.mean([accuracy_of(each) for each in members.values()]))
    assert outcome.sha256 == weights_sha256(after)
    logits = sum(logits_of(evaluator.model(each), evaluator.inputs) for each in members.values())
    assert outcome.ensemble == accuracy(np.asarray(logits), evaluator.targets)


def test_a_model_built_from_weights_is_ready_and_shares_no_memory_with_them(make_task):
    task = make_task()
    weights = weights_of(task, 1)
    model = Evaluator(task, RunConfig()).model(weights)
    assert not model.training
    weights["first.weight"][:] = 0.0
    assert model.state_dict()["first.weight"].any()


def test_weights_of_another_model_are_refused(make_task, refused):
    evaluator = Evaluator(make_task(width=8), RunConfig())
    with refused(DataError, "'small'", "first.weight", "as it was in the run"):
        evaluator.model(weights_of(make_task(width=9), 0))


def test_the_server_calibrates_on_the_undivided_training_data(make_task):
    task = make_task(train=60)
    config = RunConfig.from_mapping({"division": "iid", "members": 3, "calibration-examples": 60})
    evaluator = Evaluator(task, config)
    rows = torch.cat(list(evaluator.server_calibration()))
    assert rows.shape == (60, 6)
    inputs = task.train_data().tensors[0]
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, inputs.tolist()))
    again = torch.cat(list(evaluator.server_calibration()))
    assert torch.equal(rows, again)
