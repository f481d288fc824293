"""The built-in models, by name, for any task whose inputs are images.

Parameters are registered in the order of depth, which is what a schedule over the layers goes by.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from wash_fl.core import philox
from wash_fl.errors import ConfigError
from wash_fl.tasks.task import Task, import_extra

DEFAULT = "default"
SMALLEST_SIDE = 8
SMALLEST_SIDES = {"vgg16": 16}
"""Of models that halve their inputs more often."""


def build_model(name: str, task: Task) -> nn.Module:
    """Build a new, untrained model for a task.

    Parameters
    ----------
    name : str
        ``"default"`` (the task's own), ``"small-cnn"``, ``"resnet20"``, ``"resnet18"`` (torchvision's, for
        large images), ``"resnet18-3x3"`` and ``"vgg16"`` (the same for images of 32x32), or
        ``"mobilenet-v3-small"``.
    task : Task
        Gives the input shape ``(channels, height, width)`` and the number of classes.

    Returns
    -------
    Module
        float32 inputs of shape ``(batch, channels, height, width)`` to logits of shape
        ``(batch, classes)``.

    Raises
    ------
    ConfigError
        If the name is unknown, the task's inputs are not images of at least 8x8, or the model is
        torchvision's and torchvision is not installed.
    """
    if name == DEFAULT:
        return task.model()
    if name not in _BUILDERS:
        raise ConfigError(
            f"model = {name!r} is not allowed: it is one of {', '.join(MODELS)}. "
            "A model of your own is the model() of a task of your own."
        )
    shape = task.input_shape
    side = SMALLEST_SIDES.get(name, SMALLEST_SIDE)
    if len(shape) != 3 or min(shape) < 1 or min(shape[1:]) < side:
        raise ConfigError(
            f"the model {name!r} needs inputs of shape (channels, height, width) of at least "
            f"{side}x{side}, and those of the task {task.name!r} are {shape}: "
            f"use model = {DEFAULT!r}, the task's own."
        )
    return _BUILDERS[name](shape[0], len(task.classes))


def initial_model(name: str, task: Task, seed: int) -> nn.Module:
    """Build the model that every member of a run starts from.

    The weights are a function of the run seed alone: members that start apart are not pulled into
    one basin by small exchanges. PyTorch's global generator is left as it was.

    Parameters
    ----------
    name, task
        As in :func:`build_model`.
    seed : int
        The run seed.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed the generators of devices that are not restored.
        torch.default_generator.manual_seed(philox.seed_of(seed, "init"))
        return build_model(name, task)


def small_cnn(channels: int, classes: int) -> nn.Module:
    """Three convolutions with BatchNorm (16, 32, 64 channels) and one linear layer."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=_conv3x3(channels, 16),
            bn1=nn.BatchNorm2d(16),
            # The largest of four before ReLU is, to the bit, that after it, and so is its gradient: a quarter
            # of the work.
            pool1=nn.MaxPool2d(2),
            relu1=nn.ReLU(inplace=True),
            conv2=_conv3x3(16, 32),
            bn2=nn.BatchNorm2d(32),
            pool2=nn.MaxPool2d(2),
            relu2=nn.ReLU(inplace=True),
            conv3=_conv3x3(32, 64),
            bn3=nn.BatchNorm2d(64),
            relu3=nn.ReLU(inplace=True),
            pool3=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(64, classes),
        )
    )


class ResNet20(nn.Module):
    """The 20-layer residual network for small images of He et al. (2016), section 4.2.

    Shortcuts have no parameters (the paper's option A): they are subsampled and padded with zero channels.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Residual(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(_Residual(16, 32), _Residual(32, 32), _Residual(32, 32))
        self.layer3 = nn.Sequential(_Residual(32, 64), _Residual(64, 64), _Residual(64, 64))
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs of shape (batch, channels, height, width) to logits of shape (batch, classes)."""
        hidden = nn.functional.relu(self.bn1(self.conv1(inputs)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: torch.Tensor = self.fc(hidden.mean((2, 3)))
        return logits


class _Residual(nn.Module):
    """Two convolutions and a shortcut; half the resolution where the channels double."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.stride = channels_out // channels_in
        self.extra = channels_out - channels_in
        self.conv1 = _conv3x3(channels_in, channels_out, self.stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = _conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.relu(self.bn1(self.conv1(inputs)))
        hidden = self.bn2(self.conv2(hidden))
        shortcut = inputs
        if self.extra:
            subsampled = inputs[:, :, :: self.stride, :: self.stride]
            shortcut = nn.functional.pad(subsampled, (0, 0, 0, 0, 0, self.extra))
        return nn.functional.relu(hidden + shortcut)


def _resnet18(channels: int, classes: int) -> nn.Module:
    zoo = import_extra("torchvision.models", "the model 'resnet18'", ConfigError)
    return _with_channels(zoo.resnet18(weights=None, num_classes=classes), "conv1", channels)


def resnet18_3x3(channels: int, classes: int) -> nn.Module:
    """ResNet-18 for images of 32x32: a first convolution of 3x3 without stride, and no pooling after it."""
    zoo = import_extra("torchvision.models", "the model 'resnet18-3x3'", ConfigError)
    model: nn.Module = zoo.resnet18(weights=None, num_classes=classes)
    conv = _conv3x3(channels, 64)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    model.set_submodule("conv1", conv)
    model.set_submodule("maxpool", nn.Identity())
    return model


def _vgg16(channels: int, classes: int) -> nn.Module:
    """VGG-16 with BatchNorm for small images: its 13 convolutions, their mean, and one linear layer."""
    zoo = import_extra("torchvision.models", "the model 'vgg16'", ConfigError)
    features = zoo.vgg16_bn(weights=None, num_classes=1, init_weights=False).features[:-1]
    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            features=features, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(512, classes)
        )
    )
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return _with_channels(model, "features.0", channels)


def _mobilenet_v3_small(channels: int, classes: int) -> nn.Module:
    zoo = import_extra("torchvision.models", "the model 'mobilenet-v3-small'", ConfigError)
    return _with_channels(zoo.mobilenet_v3_small(weights=None, num_classes=classes), "features.0.0", channels)


def _with_channels(model: nn.Module, first: str, channels: int) -> nn.Module:
    """Give torchvision's model a first convolution for other inputs than RGB, initialised as its own is."""
    conv = model.get_submodule(first)
    assert isinstance(conv, nn.Conv2d) and isinstance(conv.padding[0], int)
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    new = nn.Conv2d(channels, conv.out_channels, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    model.set_submodule(first, new)
    return model


def _conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


_BUILDERS: dict[str, Callable[[int, int], nn.Module]] = {
    "small-cnn": small_cnn,
    "resnet20": ResNet20,
    "resnet18": _resnet18,
    "resnet18-3x3": resnet18_3x3,
    "vgg16": _vgg16,
    "mobilenet-v3-small": _mobilenet_v3_small,
}
MODELS = (DEFAULT, *_BUILDERS)
