"""A forward that looks at values, which no ONNX graph can."""

from good import CLASSES, INPUT_SHAPE, Net, test_data, train_data  # noqa: F401


class Branching(Net):
    def forward(self, inputs):
        outputs = super().forward(inputs)
        return outputs if float(outputs.abs().max()) < 100 else outputs / 100


def model():
    return Branching()
