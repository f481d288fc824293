"""Handwritten digits of 8x8 pixels: a task that needs no download and no package beside torch.

1,797 examples of 10 classes (E. Alpaydin and C. Kaynak, UCI, 1998). Where they are from is in
``data/digits.md``.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from wash_fl.tasks import bundled
from wash_fl.tasks.division import stratified_order
from wash_fl.tasks.models import small_cnn
from wash_fl.tasks.task import Examples

CLASSES = tuple("0123456789")
INPUT_SHAPE = (1, 8, 8)
PREPROCESSING = "8x8 grey values 0 (paper) to 16 (ink), divided by 16."
# Of an image file, in which paper is black and ink is white.
NORMALIZATION = (0.0, 1.0)

# The split belongs to the task and not to a run: every run is judged on the same 360 examples.
_SPLIT_SEED = 0
_TEST_EXAMPLES = 360
_INK = 16

DATA_FILE = Path(__file__).with_name("data") / "digits.json"


def model() -> nn.Module:
    """Return a new small CNN with BatchNorm (about 24,000 parameters)."""
    return small_cnn(INPUT_SHAPE[0], len(CLASSES))


def train_data() -> Examples:
    """Return 1,437 examples: float32 inputs of shape (1, 8, 8) in 0..1, int64 classes.

    Raises
    ------
    DataError
        If the data file is missing or damaged.
    """
    return _part(slice(_TEST_EXAMPLES, None))


def test_data() -> Examples:
    """Return the other 360 examples, with the same share of each class."""
    return _part(slice(_TEST_EXAMPLES))


def _part(which: slice) -> Examples:
    (images, classes), _ = bundled.read(DATA_FILE, "images", "classes")
    whole = images.shape[1:] == INPUT_SHAPE[1:] and classes.shape == images.shape[:1] and len(images)
    if not whole or images.dtype != np.uint8 or classes.dtype != np.uint8:
        raise bundled.damaged(DATA_FILE, f"images {images.dtype} {images.shape}, classes {classes.shape}")
    if images.max() > _INK or classes.max() >= len(CLASSES):
        raise bundled.damaged(DATA_FILE, f"values above {_INK}, or of another class than 0 to 9")
    indices = stratified_order(classes, _SPLIT_SEED, "digits")[which]
    inputs = torch.from_numpy(images[indices]).float().div_(_INK).unsqueeze(1)
    return TensorDataset(inputs, torch.from_numpy(classes[indices]).long())
