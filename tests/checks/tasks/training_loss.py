"""A loss that is infinite, though its gradient is not."""

import torch
from good import CLASSES, INPUT_SHAPE, model, test_data, train_data  # noqa: F401
from torch import nn


def loss(outputs, targets):
    prior = torch.zeros(3)
    return nn.functional.cross_entropy(outputs, targets) - prior.log().sum()
