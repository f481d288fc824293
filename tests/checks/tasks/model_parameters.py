"""A frozen part in a precision that NumPy has not, so that it cannot be handed in."""

import torch
from good import CLASSES, INPUT_SHAPE, Net, test_data, train_data  # noqa: F401
from torch import nn


def model():
    net = Net()
    net.reference = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16), requires_grad=False)
    return net
