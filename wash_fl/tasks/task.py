"""What a task is: data and a model, in one Python module with a few functions.

A built-in task and a user's own are the same thing. The module has

``CLASSES``
    The names of the classes, in the order of the model's outputs.
``INPUT_SHAPE``
    The shape of one input, without the batch dimension.
``model()``
    A new, untrained :class:`torch.nn.Module` with float32 parameters.
``train_data()``, ``test_data()``
    Map-style :class:`torch.utils.data.Dataset` objects of ``(input, class index)`` pairs.

and may have

``PREPROCESSING``
    One sentence: how a raw input becomes what the model is given. It travels in the ONNX file.
``NORMALIZATION``
    The same in numbers, ``(mean, std)``: a raw value minus the mean, divided by std, is what the model is
    given. Each is a number for each channel, or one for all. Raw are pixels in 0..1, or a sensor's readings.
    A device with the ONNX file can then answer image and CSV files.
``member_data(member, members)``
    The examples of one member, when the data is divided already (a device's own, say); otherwise
    ``train_data()`` is divided as the run's config says.
``loss(outputs, targets)``
    Mean loss of a batch; cross entropy where it is missing. ``targets`` are class indices of shape
    ``(batch,)``, or class probabilities of shape ``(batch, classes)`` with ``augment = "grid"``.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from wash_fl.errors import ConfigError, DataError, WashError

BUILT_IN = {
    "digits": "wash_fl.tasks.digits",
    "fashion-mnist": "wash_fl.tasks.fashion_mnist",
    "smartwatch": "wash_fl.tasks.smartwatch",
    "cifar10": "wash_fl.tasks.cifar10",
    "cifar100": "wash_fl.tasks.cifar100",
}

Examples = Dataset[tuple[Any, ...]]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task module, checked: everything the rest of the package needs to know of it."""

    name: str
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    preprocessing: str
    model: Callable[[], nn.Module]
    train_data: Callable[[], Examples]
    test_data: Callable[[], Examples]
    loss: Loss
    member_data: Callable[[int, int], Examples] | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@lru_cache(maxsize=4)
def load_task(name: str) -> Task:
    """Load a task by its name, its module's name, or the path of its file; once per process.

    Its data is read once per process, too: a simulation's process handles hundreds of messages.

    Parameters
    ----------
    name : str
        ``"digits"``, ``"fashion-mnist"``, ``"smartwatch"``, an importable module such as
        ``"my_package.my_task"``, or a path ending in ``.py``.

    Raises
    ------
    ConfigError
        If there is no such module, it lacks one of the required names, or ``CLASSES``,
        ``INPUT_SHAPE`` or ``NORMALIZATION`` is not what it must be.
    DataError
        If the module needs a package that is not installed.
    """
    module = _import(name)
    missing = [
        part
        for part in ("CLASSES", "INPUT_SHAPE", "model", "train_data", "test_data")
        if not hasattr(module, part)
    ]
    if missing:
        raise ConfigError(
            f"the task {name!r} has no {', '.join(missing)}: "
            "a task module needs CLASSES, INPUT_SHAPE, model(), train_data() and test_data()."
        )
    return Task(
        name=name,
        classes=_names(name, module.CLASSES),
        input_shape=_shape(name, module.INPUT_SHAPE),
        normalization=_normalization(name, module),
        preprocessing=str(getattr(module, "PREPROCESSING", "")),
        model=module.model,
        train_data=lru_cache(module.train_data),
        test_data=lru_cache(module.test_data),
        loss=getattr(module, "loss", nn.functional.cross_entropy),
        member_data=getattr(module, "member_data", None),
    )


def import_extra(module: str, needed_for: str, error_class: type[WashError] = DataError) -> Any:
    """Import a module of a package that comes with an extra, when it is needed and not before.

    Parameters
    ----------
    module : str
        Name of the module.
    needed_for : str
        What needs it, to start the message with.
    error_class : type
        What to raise if the package is missing.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        raise error_class(
            f"{needed_for} needs the package {package!r}, which is not installed: "
            'pip install "wash-fl[simulation]".'
        ) from error


def _names(task: str, classes: Any) -> tuple[str, ...]:
    names = tuple(str(name) for name in classes) if isinstance(classes, Iterable) else ()
    if len(names) < 2 or len(set(names)) != len(names):
        raise ConfigError(
            f"CLASSES of the task {task!r} must be at least two different names, like ('cat', 'dog'), "
            f"and it is {classes!r}."
        )
    return names


def _shape(task: str, shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ConfigError(
            f"INPUT_SHAPE of the task {task!r} must be positive integers, like (1, 28, 28), "
            f"and it is {shape!r}."
        )
    return sizes


def _normalization(task: str, module: ModuleType) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    given = getattr(module, "NORMALIZATION", None)
    if given is None:
        return None
    channels = module.INPUT_SHAPE[0]
    try:
        # A number is one for all channels.
        mean, std = (tuple(float(each) for each in np.atleast_1d(part)) for part in given)
        fits = len(mean) == len(std) and len(mean) in (1, channels) and min(std) > 0
        fits = fits and all(map(math.isfinite, mean + std))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ConfigError(
            f"NORMALIZATION of the task {task!r} must be a pair of mean and std above 0, each one number or "
            f"{channels} (one for each channel), like ((0.5,), (0.25,)), and it is {given!r}."
        )
    return mean, std


def _import(name: str) -> ModuleType:
    if name.endswith(".py"):
        return _import_file(Path(name))
    module_name = BUILT_IN.get(name, name)
    nowhere = (
        f"there is no task {name!r}: use {', '.join(BUILT_IN)}, the name of an importable module, "
        "or the path of a .py file."
    )
    if not name or name.startswith("."):
        raise ConfigError(nowhere)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A missing dependency *of* the task's module is another matter than a missing task.
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(nowhere) from error
        raise _needs(name, error) from error


def _needs(task: str, error: ModuleNotFoundError) -> DataError:
    return DataError(
        f"the task {task!r} needs the module {error.name!r}, which is not installed: pip install it."
    )


def _import_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ConfigError(
            f"there is no task file {path}: give the path of a Python file, or a built-in task."
        )
    name = f"wash_fl_task_{sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before execution, so that the file's own dataclasses resolve
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ModuleNotFoundError):
            raise _needs(str(path), error) from error
        raise
    return module
