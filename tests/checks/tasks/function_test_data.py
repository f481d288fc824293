"""Noise in the test data, of a generator that nobody seeds."""

import torch
from good import CLASSES, INPUT_SHAPE, INPUTS, TARGETS, model, train_data  # noqa: F401
from torch.utils.data import TensorDataset


def test_data():
    return TensorDataset(INPUTS[60:] + 0.1 * torch.randn(30, 6), TARGETS[60:])
