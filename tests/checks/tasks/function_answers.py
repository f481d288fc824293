"""A scale that every process draws for itself, where no look at the model can see it."""

import random

from good import CLASSES, INPUT_SHAPE, Net, test_data, train_data  # noqa: F401

SCALE = random.SystemRandom().uniform(0.5, 2)


class ScaledNet(Net):
    def forward(self, inputs):
        return super().forward(SCALE * inputs)


def model():
    return ScaledNet()
