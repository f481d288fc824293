"""What one process makes of a task, in so few bytes that another process can be held against it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final, Self

import numpy as np
import torch
from torch import nn

from wash_fl.checks.look import Look
from wash_fl.tasks.task import Task
from wash_fl.tasks.user_code import user_code

CHUNK: Final = 32
"""Examples to a hash: two processes rarely have the time for the same number of them."""


@dataclass(frozen=True)
class DataPrint:
    """A data set: its length, and hashes of inputs and labels in the order in which they were looked at."""

    length: int
    inputs: list[str]
    labels: list[str]

    @classmethod
    def of(cls, look: Look) -> Self:
        """Return that of a data set."""
        labels = look.labels[: len(look.hashes)].tolist()
        return cls(
            length=look.total,
            inputs=[_short(b"".join(each)) for each in _chunks(look.hashes)],
            labels=[_short(repr(each).encode()) for each in _chunks(labels)],
        )


@dataclass(frozen=True)
class Fingerprint:
    """A task as one process sees it.

    Attributes
    ----------
    names : dict
        What the task declares, by name.
    weights : dict of str to str
        A hash of each tensor of the run's initial model, by name.
    outside : dict of str to str
        A hash of each tensor and array that the model has outside its state dict.
    answers : list of list of float
        What a model with these weights answers to some test inputs.
    loss : float
        The task's loss of outputs that are made up.
    train, test : DataPrint
        The data.
    members : list of DataPrint
        Each member's own, where the task divides its data itself.
    """

    names: dict[str, Any]
    weights: dict[str, str]
    outside: dict[str, str]
    answers: list[list[float]]
    loss: float
    train: DataPrint
    test: DataPrint
    members: list[DataPrint]

    def as_json(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Return what :meth:`as_json` was made of."""
        data = {name: DataPrint(**content[name]) for name in ("train", "test")}
        members = [DataPrint(**each) for each in content["members"]]
        return cls(**{**content, **data, "members": members})


def names_of(task: Task) -> dict[str, Any]:
    """Return what a task declares, as JSON gives it back."""
    raw = task.normalization
    return {
        "CLASSES": list(task.classes),
        "INPUT_SHAPE": list(task.input_shape),
        "PREPROCESSING": task.preprocessing,
        "NORMALIZATION": None if raw is None else [list(each) for each in raw],
        "COLUMNS": list(task.columns),
    }


def loss_of(task: Task, targets: torch.Tensor) -> float:
    """Return a task's loss of outputs that are made up: both logits and probabilities, the same everywhere.

    Parameters
    ----------
    task : Task
    targets : torch.Tensor of int64, shape (examples,)

    Raises
    ------
    DataError
        If it raises something.
    """
    generator = torch.Generator().manual_seed(0)
    outputs = 0.05 + 0.9 * torch.rand(len(targets), len(task.classes), generator=generator)
    with torch.random.fork_rng(devices=[]), user_code(f"loss(outputs, targets) of the task {task.name!r}"):
        torch.default_generator.manual_seed(0)
        return float(torch.as_tensor(task.loss(outputs, targets)).detach())


def weights_of(model: nn.Module) -> dict[str, str]:
    """Return a hash of each tensor in a model's state dict."""
    return {name: _of(each) for name, each in model.state_dict().items() if isinstance(each, torch.Tensor)}


def outside_of(model: nn.Module) -> dict[str, str]:
    """Return a hash of each tensor and array that a model has outside its state dict, by where it is."""
    keys = model.state_dict().keys()
    prints = {name: _of(each) for name, each in model.named_buffers() if name not in keys}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in _TORCHS_OWN:
                where = f"{name}.{key}".lstrip(".")
                prints |= {place: _of(each) for place, each in _arrays(value, where)}
    return prints


_TORCHS_OWN = frozenset(vars(nn.Module()))


def _arrays(value: Any, where: str, depth: int = 3) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor | np.ndarray) and not isinstance(value, nn.Parameter):
        yield where, value
    elif depth and isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _arrays(each, f"{where}[{index}]", depth - 1)
    elif depth and isinstance(value, dict):
        for key, each in value.items():
            yield from _arrays(each, f"{where}[{key!r}]", depth - 1)


def _of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous()
        return _short(f"{flat.dtype} {tuple(flat.shape)}".encode() + _bits(flat))
    return _short(f"{value.dtype} {value.shape}".encode() + value.tobytes())


def _bits(flat: torch.Tensor) -> bytes:
    bits: bytes = flat.reshape(-1).view(torch.uint8).numpy().tobytes()
    return bits


def _short(content: bytes) -> str:
    return sha256(content).hexdigest()[:12]


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    return (items[begin : begin + CHUNK] for begin in range(0, len(items), CHUNK))
