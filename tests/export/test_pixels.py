"""A card with another normalization than its examples is refused: a device would prepare its own by it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wash_fl.errors import ExportError
from wash_fl.export import ModelCard, Normalization, export_onnx
from wash_fl.export.pixels import refuse_other_pixels

CIFAR = Normalization(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
IDENTITY = Normalization(mean=(0.0,), std=(1.0,))
HALVES = Normalization(mean=(0.5,), std=(0.5,))


def photos(low: int = 0, high: int = 255, step: int = 1) -> np.ndarray:
    """Return bytes of colour pictures, (40, 3, 16, 16); both ends are there."""
    bytes_ = np.random.default_rng(3).integers(low, high + 1, (40, 3, 16, 16)) // step * step
    bytes_[0, :, 0, :2] = low, high
    return bytes_


def pixels(bytes_: np.ndarray) -> np.ndarray:
    return (bytes_ / 255).astype(np.float32)


def refusal(normalization: Normalization, inputs: np.ndarray) -> str:
    with pytest.raises(ExportError) as caught:
        refuse_other_pixels(normalization, inputs)
    assert "NORMALIZATION must be" in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("normalization", [CIFAR, IDENTITY, HALVES])
@pytest.mark.parametrize("bytes_", [photos(), photos(20, 230), photos(step=2), photos(step=17), photos(7, 7)])
def test_pictures_that_are_prepared_as_the_card_says_pass(normalization, bytes_):
    refuse_other_pixels(normalization, normalization.apply(pixels(bytes_)))


def test_digits_of_few_levels_and_scaled_pictures_pass():
    refuse_other_pixels(
        IDENTITY, (np.arange(17).repeat(1000).reshape(1, 1, 170, 100) / 16).astype(np.float32)
    )
    scaled = np.random.default_rng(4).random((40, 3, 16, 16)).astype(np.float32)
    refuse_other_pixels(CIFAR, CIFAR.apply(scaled))


def test_mean_and_std_rounded_to_three_digits_pass():
    rounded = Normalization(mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
    exact = Normalization(mean=(0.4912, 0.4821, 0.4471), std=(0.2471, 0.2431, 0.2621))
    refuse_other_pixels(rounded, exact.apply(pixels(photos(90, 160))))


def test_what_is_no_picture_has_no_range():
    windows = np.random.default_rng(5).normal(size=(9, 6, 125)).astype(np.float32)
    refuse_other_pixels(IDENTITY, windows)
    refuse_other_pixels(IDENTITY, windows.reshape(9, 6, 25, 5))


FAULTS = {
    "another mean": (CIFAR, Normalization(mean=(0.4914, 0.4822, 0.4565), std=CIFAR.std), "channel 2"),
    "another std": (CIFAR, Normalization(mean=CIFAR.mean, std=(0.2470, 0.2235, 0.2616)), "channel 1"),
    "blue first": (CIFAR, Normalization(mean=CIFAR.mean[::-1], std=CIFAR.std[::-1]), "channel 0"),
    "one mean for all": (CIFAR, Normalization(mean=(0.4914,), std=(0.2470,)), "channel 1"),
    "none": (CIFAR, IDENTITY, "channel 0"),
    "of bytes": (CIFAR, Normalization(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)), "channel 0"),
    "never applied": (IDENTITY, HALVES, "pixels that were not normalized"),
    "applied to bytes": (Normalization(mean=(0.0,), std=(1 / 255,)), IDENTITY, "runs from 0 to 255"),
    "applied to bytes and halved": (Normalization(mean=(0.5,), std=(0.5 / 255,)), HALVES, "channel 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_card_with_another_normalization_than_the_examples_is_refused(fault):
    applied, card, part = FAULTS[fault]
    assert part in refusal(card, applied.apply(pixels(photos())))


@pytest.mark.parametrize("fault", ["another std", "blue first", "never applied"])
def test_it_is_refused_too_where_no_pixel_is_black_or_white(fault):
    applied, card, _ = FAULTS[fault]
    assert "lie between bytes" in refusal(card, applied.apply(pixels(photos(90, 165))))


def test_the_export_refuses_it_before_anything_is_written(tmp_path: Path):
    card = ModelCard(classes=("a", "b"), input_shape=(3, 16, 16), normalization=HALVES)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).eval()
    with pytest.raises(ExportError, match="NORMALIZATION must be"):
        export_onnx(model, tmp_path / "model.onnx", card=card, examples=torch.from_numpy(pixels(photos())))
    assert not list(tmp_path.iterdir())
