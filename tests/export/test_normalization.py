"""Raw values become what a model is given, channel by channel."""

import numpy as np
import pytest
import torch

from wash_fl.errors import ExportError
from wash_fl.export.normalization import Normalization


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 5)])
def test_each_channel_has_its_own_mean_and_std(shape):
    raw = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    normal = Normalization(mean=(0.0, 1.0, 2.0), std=(1.0, 0.5, 0.25)).apply(raw)
    for channel, (mean, std) in enumerate([(0, 1), (1, 0.5), (2, 0.25)]):
        np.testing.assert_allclose(normal[:, channel], (raw[:, channel] - mean) / std, rtol=1e-6)
    assert normal.dtype == np.float32 and normal.shape == raw.shape


def test_one_pair_is_for_all_channels_and_the_bits_are_torchs():
    raw = np.random.default_rng(1).random((2, 3, 8, 8), dtype=np.float32)
    normal = Normalization(mean=(0.2860,), std=(0.3530,)).apply(raw)
    expected = torch.from_numpy(raw.copy()).sub_(0.2860).div_(0.3530)
    np.testing.assert_array_equal(normal, expected.numpy())


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((), ()),
        ((0.0,), (0.0,)),
        ((0.0,), (-1.0,)),
        ((0.0, 0.0), (1.0,)),
        ((float("nan"),), (1.0,)),
        ((0.0,), (float("inf"),)),
        ([0.0], [1.0]),
        (0.0, 1.0),
        (("0",), ("1",)),
        ((False,), (True,)),
    ],
)
def test_what_is_no_normalization_is_refused(mean, std):
    with pytest.raises(ExportError, match="normalization"):
        Normalization(mean=mean, std=std)
