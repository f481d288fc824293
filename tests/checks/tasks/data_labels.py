"""Examples that cross entropy ignores, and that no accuracy does."""

from good import CLASSES, INPUT_SHAPE, INPUTS, TARGETS, model, test_data  # noqa: F401
from torch.utils.data import TensorDataset


def train_data():
    targets = TARGETS[:60].clone()
    targets[::7] = -100
    return TensorDataset(INPUTS[:60], targets)
