"""A temperature of the loss that asks for a gradient, and that no optimizer has."""

import torch
from good import CLASSES, INPUT_SHAPE, model, test_data, train_data  # noqa: F401
from torch import nn

temperature = nn.Parameter(torch.ones(()))


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs / temperature, targets)
