"""A member's share that depends on the time."""

import time

from good import CLASSES, INPUT_SHAPE, INPUTS, TARGETS, model, test_data, train_data  # noqa: F401
from torch.utils.data import TensorDataset

BEGIN = time.time_ns() // 1000 % 20


def member_data(member, members):
    rows = slice(BEGIN, BEGIN + 40)
    return TensorDataset(INPUTS[rows] + time.time_ns() % 1000, TARGETS[rows])
