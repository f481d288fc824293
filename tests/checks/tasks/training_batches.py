"""BatchNorm, whose statistics are estimated from one example."""

from good import CLASSES, INPUT_SHAPE, test_data, train_data  # noqa: F401
from torch import nn


def model():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
