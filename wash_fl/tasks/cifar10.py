"""CIFAR-10: 50,000 + 10,000 colour images of 32x32 pixels, 10 classes; see :mod:`wash_fl.tasks.cifar`."""

from torch import nn

from wash_fl.tasks.cifar import CIFAR10, SHAPE, load
from wash_fl.tasks.models import resnet18_3x3
from wash_fl.tasks.task import Examples

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
INPUT_SHAPE = SHAPE
PREPROCESSING = CIFAR10.preprocessing
NORMALIZATION = (CIFAR10.mean, CIFAR10.std)


def model() -> nn.Module:
    """Return a new ResNet-18 for small images (11.2 million parameters)."""
    return resnet18_3x3(SHAPE[0], len(CLASSES))


def train_data() -> Examples:
    """Return 50,000 examples: normalised float32 inputs of shape (3, 32, 32), int64 classes."""
    return load(CIFAR10, CIFAR10.train)


def test_data() -> Examples:
    """Return 10,000 examples, as :func:`train_data` does."""
    return load(CIFAR10, CIFAR10.test)
