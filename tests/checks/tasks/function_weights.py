"""A head for training alone, whose weights are NumPy's to draw."""

import numpy as np
import torch
from good import CLASSES, INPUT_SHAPE, Net, test_data, train_data  # noqa: F401
from torch import nn


class WithHelper(Net):
    def __init__(self):
        super().__init__()
        values = np.random.default_rng().normal(size=(8, 3)).astype(np.float32)
        self.helper = nn.Parameter(torch.from_numpy(values))

    def forward(self, inputs):
        hidden = torch.relu(self.hidden(inputs))
        return self.head(hidden) + hidden @ self.helper if self.training else self.head(hidden)


def model():
    return WithHelper()
