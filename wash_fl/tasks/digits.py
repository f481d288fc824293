"""Handwritten digits of 8x8 pixels, embedded in scikit-learn: a task that needs no download.

1,797 examples of 10 classes from 43 writers (E. Alpaydin and C. Kaynak, UCI, 1998).
"""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from wash_fl.tasks.division import stratified_order
from wash_fl.tasks.models import small_cnn
from wash_fl.tasks.task import Examples, import_extra

CLASSES = tuple("0123456789")
INPUT_SHAPE = (1, 8, 8)
PREPROCESSING = "8x8 grey values 0 (paper) to 16 (ink), divided by 16."
# Of an image file, in which paper is black and ink is white.
NORMALIZATION = (0.0, 1.0)

# The split belongs to the task and not to a run: every run is judged on the same 360 examples.
_SPLIT_SEED = 0
_TEST_EXAMPLES = 360


def model() -> nn.Module:
    """Return a new small CNN with BatchNorm (about 24,000 parameters)."""
    return small_cnn(INPUT_SHAPE[0], len(CLASSES))


def train_data() -> Examples:
    """Return 1,437 examples: float32 inputs of shape (1, 8, 8) in 0..1, int64 classes.

    Raises
    ------
    DataError
        If scikit-learn is not installed.
    """
    return _part(slice(_TEST_EXAMPLES, None))


def test_data() -> Examples:
    """Return the other 360 examples, with the same share of each class."""
    return _part(slice(_TEST_EXAMPLES))


def _part(which: slice) -> Examples:
    sklearn_datasets = import_extra("sklearn.datasets", "the task 'digits'")
    digits = sklearn_datasets.load_digits()
    chosen = stratified_order(digits.target, _SPLIT_SEED, "digits")[which]
    inputs = torch.from_numpy(digits.images[chosen]).float().div_(16).unsqueeze(1)
    return TensorDataset(inputs, torch.from_numpy(digits.target[chosen]).long())
