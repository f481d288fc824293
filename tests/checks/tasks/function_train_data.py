"""Labels that are drawn anew wherever they are asked for."""

import torch
from good import CLASSES, INPUT_SHAPE, INPUTS, model, test_data  # noqa: F401
from torch.utils.data import TensorDataset


def train_data():
    return TensorDataset(INPUTS[:60], torch.randint(0, 3, (60,)))
