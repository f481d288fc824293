"""Tests of the heterogeneous setting's augmentation."""

import sys

import pytest
import torch

from wash_fl.errors import ConfigError
from wash_fl.extras import install_hint
from wash_fl.tasks import Augmentation
from wash_fl.tasks.augment import CUTMIX, ERASING, LABEL_SMOOTHING, MIXUP

torch.set_num_threads(1)

EVERYTHING = Augmentation(mixup=0.5, label_smoothing=0.1, cutmix=0.5, erasing=0.35)
SINGLE = [
    Augmentation(),
    Augmentation(mixup=1.0),
    Augmentation(cutmix=1.0),
    Augmentation(label_smoothing=0.1),
    Augmentation(erasing=0.35),
    EVERYTHING,
]


def batch(size=16, side=8, channels=1):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(size, channels, side, side, generator=generator) + 1
    return inputs, torch.arange(size) % 10


def test_each_member_draws_its_own_combination_from_the_grid():
    draws = [Augmentation.draw(7, member) for member in range(81)]
    assert len(set(draws)) == 81
    for one in draws:
        assert one.mixup in MIXUP and one.label_smoothing in LABEL_SMOOTHING
        assert one.cutmix in CUTMIX and one.erasing in ERASING
    assert draws == [Augmentation.draw(7, member) for member in range(81)]
    assert draws[:4] != [Augmentation.draw(8, member) for member in range(4)]
    assert Augmentation.draw(7, 81) == draws[0]


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    Augmentation.draw(7, 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("augmentation", SINGLE, ids=str)
@pytest.mark.parametrize("size", [1, 2, 16])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32)])
def test_targets_are_probabilities_and_the_batch_given_is_not_modified(augmentation, size, channels, side):
    inputs, targets = batch(size, side, channels)
    copies = inputs.clone(), targets.clone()
    for seed in range(5):
        torch.manual_seed(seed)
        mixed, soft = augmentation.apply(inputs, targets, 10)
        assert (mixed.shape, mixed.dtype) == (inputs.shape, inputs.dtype)
        assert (soft.shape, soft.dtype) == ((size, 10), torch.float32)
        assert soft.min() >= 0
        torch.testing.assert_close(soft.sum(1), torch.ones(size))
        assert torch.equal(inputs, copies[0]) and torch.equal(targets, copies[1])
        torch.nn.functional.cross_entropy(torch.zeros(size, 10), soft)


def test_the_seed_decides_every_draw():
    def apply(seed):
        torch.manual_seed(seed)
        return EVERYTHING.apply(*batch(), 10)

    assert all(torch.equal(one, other) for one, other in zip(apply(1), apply(1), strict=True))
    assert not torch.equal(apply(1)[0], apply(2)[0])


def test_nothing_drawn_changes_nothing():
    inputs, targets = batch()
    mixed, soft = Augmentation().apply(inputs, targets, 10)
    assert torch.equal(mixed, inputs)
    assert torch.equal(soft, torch.nn.functional.one_hot(targets, 10).float())


def test_label_smoothing_is_that_of_cross_entropy():
    inputs, targets = batch()
    _, soft = Augmentation(label_smoothing=0.1).apply(inputs, targets, 10)
    logits = torch.randn(16, 10, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, soft), expected)


def test_mixup_mixes_inputs_and_targets_in_the_same_ratio():
    inputs, targets = batch()
    torch.manual_seed(1)
    mixed, soft = Augmentation(mixup=1.0).apply(inputs, targets, 10)
    ratio = soft[1, targets[1]]
    assert 0.01 < ratio < 0.99
    torch.testing.assert_close(mixed[1], ratio * inputs[1] + (1 - ratio) * inputs[0])


def test_cutmix_weighs_targets_by_area():
    inputs, targets = batch()
    torch.manual_seed(1)
    mixed, soft = Augmentation(cutmix=1.0).apply(inputs, targets, 10)
    share = (mixed[1] == inputs[1]).float().mean()
    assert 0.01 < share < 0.99
    assert ((mixed[1] == inputs[1]) | (mixed[1] == inputs[0])).all()
    torch.testing.assert_close(soft[1, targets[1]], share)


def test_erasing_is_decided_image_by_image():
    inputs, targets = batch(1000)
    torch.manual_seed(1)
    erased, _ = Augmentation(erasing=0.35).apply(inputs, targets, 10)
    hit = (erased == 0).flatten(1).any(1).float().mean()
    assert 0.28 < hit < 0.42


def test_mixup_and_cutmix_take_turns_by_chance():
    inputs, targets = batch()
    cut = 0
    torch.manual_seed(1)
    for _ in range(200):
        mixed, soft = Augmentation(mixup=1.0, cutmix=1.0).apply(inputs, targets, 10)
        own = torch.isin(mixed, inputs).all()
        cut += int(own)
        assert soft.shape == (16, 10)
    assert 70 < cut < 130


def test_inputs_that_are_no_images_are_refused():
    with pytest.raises(ConfigError, match=r"these are \(6,\): use augment = 'none'"):
        EVERYTHING.apply(torch.zeros(4, 6), torch.zeros(4).long(), 10)


def test_without_torchvision_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    with pytest.raises(ConfigError, match=r"augment = 'grid' needs .*'torchvision'") as caught:
        EVERYTHING.apply(*batch(), 10)
    assert install_hint("simulation") in str(caught.value)
