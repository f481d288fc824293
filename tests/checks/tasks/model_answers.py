"""A model that compares an input with the rest of its batch."""

from good import CLASSES, INPUT_SHAPE, Net, test_data, train_data  # noqa: F401


class Comparing(Net):
    def forward(self, inputs):
        return super().forward(inputs - inputs.mean(0))


def model():
    return Comparing()
