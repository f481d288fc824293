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
``COLUMNS``
    The names of an input's channels (its first dimension), in their order. They travel in the ONNX file: of
    a table of readings that names its columns, a device then takes these by their names.
``AVERAGED_BUFFERS``
    Names of buffers, or patterns of them such as ``"ema.*"``, of which the members' mean is to be taken at
    the end. Without it only parameters and the statistics of BatchNorm and InstanceNorm are averaged; what
    else differs between the members is that of one of them.
``member_data(member, members)``
    The examples of one member, when the data is divided already (a device's own, say); otherwise
    ``train_data()`` is divided as the run's config says.
``loss(outputs, targets)``
    Mean loss of a batch; cross entropy where it is missing. ``targets`` are class indices of shape
    ``(batch,)``, or class probabilities of shape ``(batch, classes)`` with ``augment = "grid"``.
"""

import importlib
import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from wash_fl.core.names import refusal_of_names
from wash_fl.errors import ConfigError, DataError, WashError
from wash_fl.extras import extra_for, install_hint
from wash_fl.tasks import beside
from wash_fl.tasks.loading import BUILT_IN, import_task
from wash_fl.tasks.user_code import guarded

__all__ = ["BUILT_IN", "Examples", "Loss", "Task", "import_extra", "load_task"]

P = ParamSpec("P")
R = TypeVar("R")

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
    columns: tuple[str, ...] = ()
    averaged_buffers: tuple[str, ...] = ()


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
        If there is no such module, it raises something, it lacks one of the required names, or ``CLASSES``,
        ``INPUT_SHAPE`` or ``NORMALIZATION`` is not what it must be.
    DataError
        If the module needs a package that is not installed.
    """
    module, folder = import_task(name)
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
    for part in ("model", "train_data", "test_data", "loss", "member_data"):
        if hasattr(module, part) and not callable(getattr(module, part)):
            raise ConfigError(
                f"{part} of the task {name!r} must be a function, and it is a "
                f"{type(getattr(module, part)).__name__}: write def {part}(...)."
            )

    def own(part: str, *parameters: str) -> Callable[..., Any]:
        what = f"{part}({', '.join(parameters)}) of the task {name!r}"
        return _at_home(guarded(getattr(module, part), what), folder)

    return Task(
        name=name,
        classes=_names(name, module.CLASSES),
        input_shape=_shape(name, module.INPUT_SHAPE),
        normalization=_normalization(name, module),
        columns=_columns(name, module),
        averaged_buffers=_patterns(name, module),
        preprocessing=str(getattr(module, "PREPROCESSING", "")),
        model=_models(own("model"), name),
        train_data=lru_cache(own("train_data")),
        test_data=lru_cache(own("test_data")),
        loss=getattr(module, "loss", nn.functional.cross_entropy),
        member_data=own("member_data", "member", "members") if hasattr(module, "member_data") else None,
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
            f"{install_hint(extra_for(package) or 'simulation')}."
        ) from error


def _at_home(function: Callable[P, R], folder: Path | None) -> Callable[P, R]:
    """Return a task's function that finds the modules beside the task's file, also when it is called late."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        beside.enter(folder)
        return function(*args, **kwargs)

    return call


def _models(model: Callable[[], Any], task: str) -> Callable[[], nn.Module]:
    """Return a task's ``model`` that gives modules with all their parameters, or an error."""

    @wraps(model)
    def build() -> nn.Module:
        network = model()
        if not isinstance(network, nn.Module):
            is_class = isinstance(network, type)
            kind = f"the class {network.__name__}" if is_class else f"a {type(network).__name__}"
            remedy = f"return {network.__name__}(...)" if is_class else "return a torch.nn.Module"
            raise DataError(f"model() of the task {task!r} returns {kind}, and no model: {remedy}.")
        for name, each in (*network.named_parameters(), *network.named_buffers()):
            if nn.parameter.is_lazy(each):
                raise DataError(
                    f"{name!r} of the model of the task {task!r} has no shape yet: give lazy modules their "
                    "sizes, or call the model in model() once on torch.zeros(2, *INPUT_SHAPE)."
                )
        return network

    return build


def _names(task: str, classes: Any) -> tuple[str, ...]:
    # What has no order of its own, a set, has another in every process; and ("cat") is a string.
    entries = list(classes) if isinstance(classes, list | tuple) else []
    # Whole numbers are names, too: of digits, say.
    names = [str(name) if type(name) is int else name for name in entries]
    wrong = refusal_of_names(names)
    if len(names) < 2 or wrong:
        raise ConfigError(
            f"CLASSES of the task {task!r} must be at least two different names in a list or a tuple, in the "
            f"order of the model's outputs, like ('cat', 'dog'), and it is the {type(classes).__name__} "
            f"{str(classes)[:200]}" + (f": {wrong}." if wrong else ".")
        )
    return tuple(names)


def _shape(task: str, shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, list | tuple) else ()
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ConfigError(
            f"INPUT_SHAPE of the task {task!r} must be positive integers, like (1, 28, 28), "
            f"and it is {shape!r}."
        )
    return sizes


def _normalization(task: str, module: ModuleType) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    normalization = getattr(module, "NORMALIZATION", None)
    if normalization is None:
        return None
    channels = module.INPUT_SHAPE[0]
    try:
        # A number is one for all channels.
        mean, std = (tuple(float(each) for each in np.atleast_1d(part)) for part in normalization)
        fits = len(mean) == len(std) and len(mean) in (1, channels) and min(std) > 0
        fits = fits and all(map(math.isfinite, mean + std)) and not isinstance(normalization, Set)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ConfigError(
            f"NORMALIZATION of the task {task!r} must be a pair of mean and std above 0, each one number or "
            f"{channels} (one for each channel), like ((0.5,), (0.25,)), and it is {normalization!r}."
        )
    return mean, std


def _columns(task: str, module: ModuleType) -> tuple[str, ...]:
    columns = getattr(module, "COLUMNS", ())
    channels = module.INPUT_SHAPE[0]
    # What has an order: no set, but the columns of a data frame.
    names = columns.tolist() if hasattr(columns, "tolist") else columns
    fits = isinstance(names, list | tuple) and len(names) in {0, channels}
    wrong = refusal_of_names(names) if fits else ""
    if not fits or wrong:
        raise ConfigError(
            f"COLUMNS of the task {task!r} must be {channels} different names in a tuple, one for each "
            f"channel of INPUT_SHAPE {tuple(module.INPUT_SHAPE)}, and it is {str(columns)[:200]}"
            + (f": {wrong}." if wrong else ".")
        )
    return tuple(names)


def _patterns(task: str, module: ModuleType) -> tuple[str, ...]:
    patterns = getattr(module, "AVERAGED_BUFFERS", ())
    if not isinstance(patterns, list | tuple) or not all(isinstance(each, str) and each for each in patterns):
        raise ConfigError(
            f"AVERAGED_BUFFERS of the task {task!r} must be names of buffers or patterns of them in a tuple, "
            f"like ('ema.*',), and it is {patterns!r}."
        )
    return tuple(patterns)
