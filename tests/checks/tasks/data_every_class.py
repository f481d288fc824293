"""A class that the test data does not have."""

from good import CLASSES, INPUT_SHAPE, INPUTS, TARGETS, model, train_data  # noqa: F401
from torch.utils.data import TensorDataset


def test_data():
    return TensorDataset(INPUTS[60:], TARGETS[60:] % 2)
