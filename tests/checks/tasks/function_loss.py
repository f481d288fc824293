"""Weights of the classes that every process draws for itself."""

import random

import torch
from good import CLASSES, INPUT_SHAPE, model, test_data, train_data  # noqa: F401
from torch import nn

weights = torch.tensor([1.0, 1.0, random.SystemRandom().uniform(2, 9)])


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, weight=weights)
