"""Tests of the built-in models."""

import re
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from wash_fl.errors import ConfigError
from wash_fl.extras import install_hint
from wash_fl.tasks import MODELS, Task, build_model, initial_model
from wash_fl.tasks.models import SMALLEST_SIDES

torch.set_num_threads(1)

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
NAMED = [name for name in MODELS if name != "default"]


def make_task(shape=(1, 8, 8), classes=7):
    data = TensorDataset(torch.zeros(2, *shape), torch.zeros(2, dtype=torch.int64))
    return Task(
        name="a-task",
        classes=tuple(map(str, range(classes))),
        input_shape=shape,
        preprocessing="",
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, classes)),
        train_data=lambda: data,
        test_data=lambda: data,
        loss=nn.functional.cross_entropy,
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in NAMED for shape in SHAPES if min(shape[1:]) >= SMALLEST_SIDES.get(name, 8)],
    ids=str,
)
def test_logits_have_the_right_shape_and_every_parameter_a_gradient(name, shape):
    model = initial_model(name, make_task(shape), 1)
    torch.manual_seed(0)
    outputs = model(torch.randn(4, *shape))
    assert outputs.shape == (4, 7)
    nn.functional.cross_entropy(outputs, torch.arange(4)).backward()
    without = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []
    assert {value.dtype for value in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "expected"),
    # He et al. (2016), table 6, says 0.27M for ResNet-20; torchvision's pages give the two others with
    # 1,000 classes: 11,689,512 and 2,542,856.
    [
        ("small-cnn", 24_346),
        ("resnet20", 269_722),
        ("resnet18", 11_689_512 - 990 * 513),
        # Its first convolution has 3x3 weights for 7x7.
        ("resnet18-3x3", 11_689_512 - 990 * 513 - 64 * 3 * (49 - 9)),
        # torchvision's with 1,000 classes has 138,365,992, of which its three linear layers 123,642,856.
        # The first convolution has no bias here.
        ("vgg16", 138_365_992 - 123_642_856 - 64 + 513 * 10),
        ("mobilenet-v3-small", 2_542_856 - 990 * 1025),
    ],
)
def test_the_number_of_parameters_for_ten_classes_of_rgb_images(name, expected):
    model = build_model(name, make_task((3, 32, 32), 10))
    assert sum(value.numel() for value in model.parameters()) == expected


@pytest.mark.parametrize("name", NAMED)
def test_parameters_are_registered_in_the_order_of_depth(name):
    """A module's parameters come before those of every module that runs after it."""
    model = build_model(name, make_task((3, 32, 32))).eval()
    ran = []
    own = {module: [id(value) for value in module.parameters(recurse=False)] for module in model.modules()}
    for module in model.modules():
        if own[module]:
            module.register_forward_hook(lambda module, *_: ran.extend(own[module]))
    model(torch.zeros(1, 3, 32, 32))
    assert ran == [id(value) for value in model.parameters()]


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_alone_decides_the_initial_weights(name):
    task = make_task() if name == "default" else make_task((1, 16, 16))
    torch.manual_seed(5)
    first = initial_model(name, task, 3).state_dict()
    torch.manual_seed(6)
    again, other = initial_model(name, task, 3).state_dict(), initial_model(name, task, 4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    initial_model("small-cnn", make_task(), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_model_lists_what_there_is():
    with pytest.raises(
        ConfigError, match=r"'resnet50' is not allowed.*default, small-cnn, resnet20, resnet18"
    ):
        build_model("resnet50", make_task())


@pytest.mark.parametrize("shape", [(64,), (28, 28), (1, 7, 8), (1, 1, 8, 8)], ids=str)
@pytest.mark.parametrize("name", NAMED)
def test_an_input_that_is_no_image_is_refused(name, shape):
    with pytest.raises(
        ConfigError, match=r"needs inputs of shape \(channels, height, width\) of at least (8x8|16x16)"
    ):
        build_model(name, make_task(shape))


def test_the_tasks_own_model_takes_any_input():
    assert isinstance(build_model("default", make_task((64,))), nn.Sequential)


@pytest.mark.parametrize("name", ["resnet18", "resnet18-3x3", "mobilenet-v3-small"])
def test_without_torchvision_the_error_names_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ConfigError, match=rf"{name}.*'torchvision'.*{re.escape(install_hint('simulation'))}"):
        build_model(name, make_task())
