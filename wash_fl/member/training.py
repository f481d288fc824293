"""Local training: the same steps whether a member trains on a device, in a simulation, or in one process."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from wash_fl.config import RunConfig, TrainingConfig
from wash_fl.core import philox
from wash_fl.errors import ConfigError
from wash_fl.tasks.augment import Augmentation
from wash_fl.tasks.division import fetch
from wash_fl.tasks.task import Examples, Task


def make_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """Return the optimizer a run's options ask for, over a model's trainable parameters."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "adam":
        return Adam(parameters, lr=rate, weight_decay=decay)
    return AdamW(parameters, lr=rate, weight_decay=decay)


def resolve_device(name: str) -> torch.device:
    """Return the device an option names; ``auto`` takes CUDA or MPS when they are there.

    Raises
    ------
    ConfigError
        If the device is asked for and not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in available.items() if there))
    if not available[name]:
        there = ", ".join(device for device, present in available.items() if present)
        raise ConfigError(f"device = {name!r} is not available here: use auto, or one of {there}.")
    return torch.device(name)


def placed(model: nn.Module, config: TrainingConfig) -> nn.Module:
    """Return the model where it is to train, and as it is to lie in memory there.

    Only the weights are laid out: what comes out of a convolution lies as its weights do.

    Raises
    ------
    ConfigError
        If the device is not there.
    """
    return laid_out(model.to(resolve_device(config.device)), config)


def laid_out(model: nn.Module, config: TrainingConfig) -> nn.Module:
    """Return the model as it is to lie in memory, where it is."""
    return model.to(memory_format=MEMORY_FORMATS[config.memory_format])


MEMORY_FORMATS: Final = {"contiguous": torch.preserve_format, "channels-last": torch.channels_last}
"""The option ``memory-format`` in PyTorch's terms; ``contiguous`` leaves a model as its task made it."""


@dataclass(frozen=True)
class LocalTraining:
    """The optimizer steps of one member, each a pure function of (run seed, member, step).

    Parameters
    ----------
    config : RunConfig
        The run's options.
    task : Task
        Where the loss and the classes come from.
    examples : Dataset
        This member's training examples.
    member : int
        Its index.
    """

    config: RunConfig
    task: Task
    examples: Examples
    member: int

    def run(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        first_step: int,
        steps: int,
        progress: Callable[[int], float] | None = None,
    ) -> dict[str, float]:
        """Take optimizer steps ``first_step``, ``first_step + 1``, ... (from 0) and return the mean loss.

        The learning rate follows a per-step cosine over the whole run, from ``learning_rate`` to
        ``learning_rate_end``.

        Parameters
        ----------
        model : torch.nn.Module
            Is trained in place.
        optimizer : torch.optim.Optimizer
            Over its parameters.
        first_step, steps : int
            Which steps to take.
        progress : callable, optional
            Which part of the run is over before the n-th of these steps (from 0), 0 to 1: a
            :meth:`Round.progress <wash_fl.member.pace.Round.progress>`. By default every round has
            ``local_steps``.

        Raises
        ------
        ConfigError
            If a batch of one example is too small for the model's BatchNorm.
        """
        training = self.config.training
        total = training.rounds * training.local_steps
        device = next(model.parameters()).device
        augmentation = (
            Augmentation.draw(training.seed, self.member) if self.config.task.augment == "grid" else None
        )
        model.train()
        losses: list[torch.Tensor] = []
        for step, rows in zip(
            range(first_step, first_step + steps), self.batches(first_step, steps), strict=True
        ):
            # Dropout and augmentation draw from torch's global generator: reseeding it at each step
            # leaves no generator state to save, so a resumed run is the run.
            _seed(philox.seed_of(training.seed, "step", index=step, member=self.member), device)
            inputs, targets = fetch(self.examples, rows)
            if augmentation is not None:
                inputs, targets = augmentation.apply(inputs, targets, len(self.task.classes))
            done = step / total if progress is None else progress(step - first_step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(training, done)
            optimizer.zero_grad(set_to_none=True)
            with enough_for_batchnorm("batch-size"):
                outputs = model(inputs.to(device))
            loss = self.task.loss(outputs, targets.to(device))
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.detach())
        return {"loss": float(torch.stack(losses).mean())} if losses else {}

    def batches(self, first_step: int, steps: int) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of each batch, shape (batch_size,).

        The examples are shuffled anew in every epoch and read one epoch after the other, so a batch may
        hold the end of one and the beginning of the next: every example counts equally often, and no batch
        is smaller than the others.
        """
        training, size = self.config.training, len(self.examples)  # type: ignore[arg-type]
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(first_step, first_step + steps):
            rows = np.empty(training.batch_size, dtype=np.int64)
            for place, position in enumerate(range(step * rows.size, (step + 1) * rows.size)):
                if position // size != epoch:
                    epoch = position // size
                    order = philox.order(training.seed, "order", size, index=epoch, member=self.member)
                rows[place] = order[position % size]
            yield rows

    def calibration(self) -> Iterable[torch.Tensor]:
        """Yield input batches, without augmentation, to estimate BatchNorm statistics from."""
        size = len(self.examples)  # type: ignore[arg-type]
        chosen = philox.order(self.config.training.seed, "calib", size, member=self.member)
        chosen = chosen[: self.config.finish.calibration_examples]
        for rows in np.array_split(chosen, -(-chosen.size // CALIBRATION_BATCH)):
            yield fetch(self.examples, rows)[0]


def _seed(seed: int, device: torch.device) -> None:
    if device.type == "cpu":
        # torch.manual_seed goes on to every other kind of device, which takes longer than a small step.
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


CALIBRATION_BATCH = 256
"""Examples per batch when BatchNorm statistics are estimated: the variance within a batch counts."""


def learning_rate(config: TrainingConfig, progress: float) -> float:
    """Return the learning rate when so much of the run is over, 0 to 1: a cosine."""
    span = config.learning_rate - config.learning_rate_end
    return config.learning_rate_end + 0.5 * span * (1.0 + math.cos(math.pi * min(1.0, progress)))


@contextmanager
def enough_for_batchnorm(option: str) -> Iterator[None]:
    """Say in terms of the options what PyTorch says when BatchNorm sees one value per channel.

    Parameters
    ----------
    option : str
        What is to be raised.

    Raises
    ------
    ConfigError
        In place of PyTorch's ValueError.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "a batch of one example is too small for the model's BatchNorm: it has one value per channel. "
            f"Use {option} = 2 or more (and give each member at least 2 examples), or another norm."
        ) from error
