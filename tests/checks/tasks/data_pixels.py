"""Pictures that are not normalized as the task says."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("dark", "light")
INPUT_SHAPE = (1, 4, 4)
NORMALIZATION = (0.5, 0.25)


def _part(seed):
    inputs = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    inputs[0, 0, 0, 0], inputs[0, 0, 0, 1] = 0, 1
    return TensorDataset(inputs, (inputs.mean((1, 2, 3)) > 0.5).long())


def train_data():
    return _part(0)


def test_data():
    return _part(1)


def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
