"""Evaluation looks and does not touch, and the ensemble is the mean of logits whoever comes first."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from wash_fl.consensus.evaluate import EVALUATION_BATCH, Ensemble, MeanOfLogits, accuracy, logits_of


class _Table(nn.Module):
    """Answers example i with row i."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map indices of shape (batch,) to rows."""
        return self.rows[inputs]


def test_logits_are_those_of_evaluation_mode_and_every_modules_mode_is_restored():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    model.train()
    model[1].eval()
    buffers = {name: each.clone() for name, each in model.named_buffers()}
    inputs = torch.randn(20, 3)
    first, second = logits_of(model, inputs), logits_of(model, inputs)
    assert first.shape == (20, 2) and first.dtype == np.float32
    assert first.tobytes() == second.tobytes()
    assert [module.training for module in model] == [True, False, True, True] and model.training
    assert all(torch.equal(each, buffers[name]) for name, each in model.named_buffers())


def test_more_examples_than_a_batch_are_answered_in_their_order():
    count = 2 * EVALUATION_BATCH + 3
    table = _Table([[float(number), 0.0] for number in range(count)])
    assert logits_of(table, torch.arange(count))[:, 0].tolist() == list(range(count))


def test_accuracy_is_the_share_of_largest_logits_at_the_target():
    logits = np.array([[1, 2, 3], [3, 2, 1], [0, 5, 0], [1, 0, 0]], dtype=np.float32)
    assert accuracy(logits, np.array([2, 0, 0, 0])) == 0.75


def test_the_ensemble_is_the_mean_of_logits_and_not_a_vote():
    ensemble = Ensemble(torch.arange(2), np.array([1, 0]))
    # Two members are narrowly for class 0, one is wholly for class 1.
    for member, first in enumerate(([1.0, 0.9], [1.0, 0.9], [0.0, 9.0])):
        ensemble.add(member, _Table([first, [1.0, 0.0]]))
    assert ensemble.members == {0: 0.5, 1: 0.5, 2: 1.0}
    assert ensemble.accuracy == 1.0


def test_the_ensemble_as_one_model_answers_with_the_mean_of_its_members_logits():
    members = [_Table([first, [1.0, 0.0]]) for first in ([1.0, 0.9], [1.0, 0.9], [0.0, 9.0])]
    logits = logits_of(MeanOfLogits(members), torch.arange(2))
    np.testing.assert_allclose(logits, [[2 / 3, 3.6], [1.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_ensemble_does_not_depend_on_who_comes_first(order):
    # (1e30 - 1e30) + 1 is 1, and (1e30 + 1) - 1e30 is 0: only a fixed order repeats.
    rows = {0: [1e30, 0.5], 1: [-1e30, 0.0], 2: [1.0, 0.0]}
    ensemble = Ensemble(torch.arange(1), np.array([0]))
    for member in order:
        ensemble.add(member, _Table([rows[member]]))
    assert ensemble.accuracy == 1.0


def test_a_member_evaluated_again_replaces_its_answers():
    ensemble = Ensemble(torch.arange(1), np.array([0]))
    assert ensemble.add(0, _Table([[0.0, 1.0]])) == 0.0
    assert ensemble.add(0, _Table([[1.0, 0.0]])) == 1.0
    assert (ensemble.accuracy, ensemble.members) == (1.0, {0: 1.0})
