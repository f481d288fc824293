"""A model whose parameters have no influence yet."""

from good import CLASSES, INPUT_SHAPE, Net, test_data, train_data  # noqa: F401


class GatedNet(Net):
    gate = 0.0

    def forward(self, inputs):
        return self.gate * super().forward(inputs)


def model():
    return GatedNet()
