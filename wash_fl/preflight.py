"""Whether a run can work at all, found out before anything is started."""

from collections.abc import Sequence

import torch
from torch import nn

from wash_fl.config import RunConfig
from wash_fl.consensus.batchnorm import batchnorm_layers
from wash_fl.errors import DataError, reason_of
from wash_fl.export.normalization import Normalization
from wash_fl.export.parity import PARITY_EXAMPLES
from wash_fl.export.pixels import refuse_other_pixels
from wash_fl.member.parameters import model_layout
from wash_fl.member.slots import optimizer_slots
from wash_fl.member.training import enough_for_batchnorm, laid_out, make_optimizer, resolve_device
from wash_fl.tasks.augment import Augmentation
from wash_fl.tasks.division import fetch, labels_of, member_examples, test_examples
from wash_fl.tasks.models import build_model
from wash_fl.tasks.task import Examples, Task, load_task


def check(config: RunConfig) -> None:
    """Load the task and its data, build the model, and let it answer two examples.

    Raises
    ------
    WashError
        With what is wrong: a missing data set, a model that does not fit the data, an empty shard, a
        NORMALIZATION that the data has not.
    """
    task = load_task(config.task.task)
    resolve_device(config.training.device)
    model = build_model(config.task.model, task).eval()
    # Activations that lie otherwise are what some models cannot view as rows.
    laid_out(model, config.training)
    model_layout(model)
    if config.exchange.exchange_optimizer:
        optimizer_slots(make_optimizer(model, config.training))
    shards = [member_examples(task, config, member) for member in range(config.training.members)]
    examples = test_examples(task, config)
    # Two, where there are two: a model that mixes up the batch with another dimension is found out.
    inputs, _ = fetch(examples, range(min(2, len(examples))))  # type: ignore[arg-type]
    labels = labels_of(examples)
    if labels.min() < 0 or labels.max() >= len(task.classes):
        raise DataError(
            f"the task {task.name!r} has test examples of classes {labels.min()} to {labels.max()}, and "
            f"{len(task.classes)} CLASSES: use class indices from 0 to {len(task.classes) - 1}."
        )
    with torch.no_grad():
        try:
            outputs = model(inputs)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:  # what torch's modules raise
            reason = reason_of(error, 200)
            raise DataError(f"the model cannot answer the task's test data: {reason}.") from error
    given, wanted = tuple(getattr(outputs, "shape", ())), (len(inputs), len(task.classes))
    if given != wanted:
        raise DataError(
            f"the model answers {len(inputs)} examples in shape {given}; it must be {wanted}, one output per "
            "class in CLASSES."
        )
    _check_pixels(task, examples)
    _check_batches(config, model, shards)
    _check_augmentation(config, task, shards[0])


def _check_pixels(task: Task, examples: Examples) -> None:
    """Refuse a NORMALIZATION that the export would refuse when all the training is done."""
    if task.normalization is not None:
        mean, std = task.normalization
        inputs, _ = fetch(examples, range(min(PARITY_EXAMPLES, len(examples))))  # type: ignore[arg-type]
        refuse_other_pixels(Normalization(mean=mean, std=std), inputs.numpy())


def _check_batches(config: RunConfig, model: nn.Module, shards: Sequence[Examples]) -> None:
    """Let a model in training mode answer a batch of one example, if there will be one: BatchNorm may not."""
    batches = {"batch-size": config.training.batch_size}
    if config.finish.batchnorm == "clients" and batchnorm_layers(model):
        smallest = min(len(shard) for shard in shards)  # type: ignore[arg-type]
        batches["calibration-examples"] = min(config.finish.calibration_examples, smallest)
    for option, size in batches.items():
        if size == 1:
            one, _ = fetch(shards[0], range(1))
            with torch.no_grad(), enough_for_batchnorm(option):
                model.train()(one)


def _check_augmentation(config: RunConfig, task: Task, examples: Examples) -> None:
    """Augment two examples as a member will, if it will: not all inputs are images."""
    if config.task.augment == "grid":
        inputs, targets = fetch(examples, range(min(2, len(examples))))  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            Augmentation.draw(config.training.seed, 0).apply(inputs, targets, len(task.classes))
