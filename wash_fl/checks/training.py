"""Checks of a training step: its batches, its loss, and whether it changes anything."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from wash_fl.checks.finding import Finding
from wash_fl.checks.subject import Subject
from wash_fl.errors import DataError
from wash_fl.member.state_dict import batchnorm_layers
from wash_fl.member.training import LocalTraining, enough_for_batchnorm, make_optimizer, resolve_device
from wash_fl.tasks.division import fetch
from wash_fl.tasks.user_code import user_code


def device(subject: Subject) -> Iterator[Finding]:
    """Refuse a device that is not there."""
    yield Finding("device", "ok", str(resolve_device(subject.config.training.device)))


def batches(subject: Subject) -> Iterator[Finding]:
    """Let a model in training mode answer a batch of one example, if there will be one: BatchNorm may not."""
    config, model = subject.config, subject.new_model()
    examples = [len(shard) for shard in subject.shards]  # type: ignore[arg-type]
    sizes = {"batch-size": config.training.batch_size}
    if config.finish.batchnorm == "clients" and batchnorm_layers(model):
        sizes["calibration-examples"] = min([config.finish.calibration_examples, *examples])
    for option, size in sizes.items():
        if size == 1:
            one, _ = fetch(subject.shards[0], range(1))
            with torch.no_grad(), _restored(), enough_for_batchnorm(option):
                model.train()(one)
    division = f"{len(examples)} members train on {min(examples):,} to {max(examples):,} examples each"
    text = ", ".join([division, *(f"{option} = {size:,}" for option, size in sizes.items())])
    yield Finding("batches", "ok", text)


def loss(subject: Subject) -> Iterator[Finding]:
    """Refuse a loss that is no finite number, or that does not depend on the model."""
    value = _loss(subject, subject.new_model().train())
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
        raise DataError(f"the loss of a batch is {kind[:200]}: return its mean, a tensor of one number.")
    if not bool(torch.isfinite(value).all()):
        raise DataError(
            f"the loss of a batch is {value.item():g} with the initial weights: look at the scale of the "
            "inputs and at what the loss takes the logarithm of."
        )
    if not torch.is_grad_enabled():
        raise DataError(
            f"the task {subject.task.name!r} switches gradients off for good, so that nothing would be "
            "learned: write with torch.no_grad(): around what needs none, in place of "
            "torch.set_grad_enabled(False)."
        )
    if not value.requires_grad:
        raise DataError(
            "the loss does not depend on the model, so that nothing would be learned: compute it from the "
            "outputs, without .detach(), .item(), argmax or NumPy."
        )
    yield Finding("loss", "ok", f"{value.item():.4g} on a batch of {len(_rows(subject))}")


def own_weights(subject: Subject) -> Iterator[Finding]:
    """Refuse trainable tensors that the model does not have: no optimizer steps them, nobody sends them."""
    model = subject.new_model().train()
    own = {id(each) for each in model.parameters()}
    first = {key: each for key, each in _leaves(_loss(subject, model)).items() if key not in own}
    # What forward() makes anew each time, for a penalty of gradients say, is nobody's weight.
    strangers = first and [each for key, each in _leaves(_loss(subject, model)).items() if key in first]
    if strangers:
        shapes = ", ".join(str(tuple(each.shape)) for each in strangers[:3])
        raise DataError(
            "the loss depends on tensors that ask for a gradient and are no parameters of the model (of "
            f"shape {shapes}): no optimizer steps them, and no file has them. Make them parameters of the "
            "model, in an nn.ParameterList or nn.ModuleList where they are in a list, or let them ask for no "
            "gradient."
        )
    yield Finding("trainable tensors", "ok", "all are parameters of the model")


def _loss(subject: Subject, model: nn.Module) -> torch.Tensor:
    """Return what the task's loss makes of a batch, with all that it was computed from."""
    inputs, targets = fetch(subject.shards[0], _rows(subject))
    with _restored(), user_code("the model in training mode"), enough_for_batchnorm("batch-size"):
        outputs = model(inputs)
    with _restored(), user_code(f"loss(outputs, targets) of the task {subject.task.name!r}"):
        value: torch.Tensor = subject.task.loss(outputs, targets)
    return value


def _leaves(value: torch.Tensor) -> dict[int, torch.Tensor]:
    """Return the tensors that a backward pass would give a gradient, by identity."""
    leaves: dict[int, torch.Tensor] = {}
    visited, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        variable = getattr(node, "variable", None)  # of the nodes at which a gradient is gathered
        if isinstance(variable, torch.Tensor):
            leaves[id(variable)] = variable
        waiting += [each for each, _ in node.next_functions]
    return leaves


def step(subject: Subject) -> Iterator[Finding]:
    """Refuse a model whose parameters stay as they are in a training step, or become NaN."""
    model = subject.new_model()
    optimizer = make_optimizer(model, subject.config.training)
    training = LocalTraining(subject.config, subject.task, subject.shards[0], 0)
    with _restored(), user_code("a training step"):
        training.run(model, optimizer, 0, 1)
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    for name, each in trained:
        if not bool(torch.isfinite(each).all()):
            raise DataError(
                f"{name!r} is NaN or infinite after one training step, though the loss is not: look for a "
                "square root, a norm or a division at 0 in forward(), and at the learning rate."
            )
    # Not whether they have changed: weight decay alone does that.
    count = sum(each.grad is not None and bool(each.grad.any()) for _, each in trained)
    if not count:
        raise DataError(
            "no parameter has a gradient other than 0 in a training step, so that nothing would be learned: "
            "look for a .detach() or a multiplication by 0 in forward() or loss()."
        )
    yield Finding("training step", "ok", f"changes {count} of {len(trained)} parameter tensors")


def _rows(subject: Subject) -> range:
    size = len(subject.shards[0])  # type: ignore[arg-type]
    return range(min(subject.config.training.batch_size, size))


@contextmanager
def _restored() -> Iterator[None]:
    """Leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        yield
