"""A task with nothing wrong: what the others here take their right parts from."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("left", "middle", "right")
INPUT_SHAPE = (6,)

_generator = torch.Generator().manual_seed(3)
INPUTS = torch.randn(90, 6, generator=_generator)
TARGETS = torch.arange(90) % 3


def train_data():
    return TensorDataset(INPUTS[:60], TARGETS[:60])


def test_data():
    return TensorDataset(INPUTS[60:], TARGETS[60:])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, inputs):
        return self.head(torch.relu(self.hidden(inputs)))


def model():
    return Net()
