"""CIFAR-100: 50,000 + 10,000 colour images of 32x32 pixels, 100 classes; see :mod:`wash_fl.tasks.cifar`."""

from torch import nn

from wash_fl.tasks.cifar import CIFAR100, SHAPE, load
from wash_fl.tasks.models import resnet18_3x3
from wash_fl.tasks.task import Examples

_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
worm
"""
CLASSES = tuple(_NAMES.split())
INPUT_SHAPE = SHAPE
PREPROCESSING = CIFAR100.preprocessing
NORMALIZATION = (CIFAR100.mean, CIFAR100.std)


def model() -> nn.Module:
    """Return a new ResNet-18 for small images (11.2 million parameters)."""
    return resnet18_3x3(SHAPE[0], len(CLASSES))


def train_data() -> Examples:
    """Return 50,000 examples: normalised float32 inputs of shape (3, 32, 32), int64 classes."""
    return load(CIFAR100, CIFAR100.train)


def test_data() -> Examples:
    """Return 10,000 examples, as :func:`train_data` does."""
    return load(CIFAR100, CIFAR100.test)
