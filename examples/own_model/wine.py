"""A task of one's own: a model and its data in one file.

178 bottles from three vineyards, 13 measurements of each (S. Aeberhard and M. Forina, UCI, 1991), as
scikit-learn has them.

    wash-fl simulate --task wine.py
"""

import numpy as np
import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("barolo", "grignolino", "barbera")
INPUT_SHAPE = (13,)
PREPROCESSING = "The 13 measurements as they are; the model scales them itself."
# The same in numbers, and the names of the measurements: a device can then answer tables of bottles.
NORMALIZATION = (0.0, 1.0)
COLUMNS = tuple(load_wine().feature_names)


def model() -> nn.Module:
    """Return a new model. Its first layer learns the scale of each measurement from the data."""
    return nn.Sequential(
        nn.BatchNorm1d(13, affine=False),
        nn.Linear(13, 64),
        nn.ReLU(),
        nn.Linear(64, 3),
    )


def train_data() -> TensorDataset:
    """Return three bottles of four."""
    return _bottles(np.arange(178) % 4 != 0)


def test_data() -> TensorDataset:
    """Return every fourth bottle, which no member trains on."""
    return _bottles(np.arange(178) % 4 == 0)


def _bottles(chosen: np.ndarray) -> TensorDataset:
    inputs, targets = load_wine(return_X_y=True)
    return TensorDataset(torch.tensor(inputs[chosen]).float(), torch.tensor(targets[chosen]))


if __name__ == "__main__":
    bottle, vineyard = test_data()[-1]
    np.save("bottle.npy", bottle.numpy())
    print(f"bottle.npy: a bottle that no member has seen, of {CLASSES[vineyard]}")
