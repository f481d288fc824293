"""Checks of a task's initial model: its parameters, and what it answers."""

from collections.abc import Iterator

import torch
from torch import nn

from wash_fl.checks.finding import Finding
from wash_fl.checks.subject import Subject
from wash_fl.errors import DataError, described
from wash_fl.export.reference import are_probabilities, refuse_company
from wash_fl.member.parameters import model_layout
from wash_fl.member.slots import travelling_slots
from wash_fl.member.training import make_optimizer
from wash_fl.runs.deciding import decided
from wash_fl.tasks.models import build_model


def parameters(subject: Subject) -> Iterator[Finding]:
    """Refuse a model that cannot be exchanged or handed in, and options of an exchange that do not fit it."""
    layout = model_layout(subject.model)
    layout.rules.marked(subject.task.averaged_buffers)
    config = decided(subject.config, subject.task)
    travelling_slots(make_optimizer(subject.model, config.training), config.exchange)
    tensors = len(subject.model.state_dict())
    yield Finding("model", "ok", f"{tensors} tensors, {layout.size:,} parameters that are trained")


def fresh(subject: Subject) -> Iterator[Finding]:
    """Refuse a ``model()`` whose models share tensors: all members would be one."""
    first = subject.model
    second = build_model(subject.config.task.model, subject.task)
    if first is second:
        raise DataError(
            "model() returns the same object each time, so that all members would be one: build a new model "
            "in it."
        )
    memory = {_place(each): name for name, each in _tensors(first) if each.numel()}
    for name, each in _tensors(second):
        if each.numel() and _place(each) in memory:
            raise DataError(
                f"two models that model() returns share {name!r}, so that a member would train the others': "
                "build every part anew in model()."
            )
    yield Finding("two models", "ok", "share nothing")


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def tokens(subject: Subject) -> Iterator[Finding]:
    """Refuse whole numbers that the model has no answer to: words beyond an embedding's table, say."""
    extremes = [(look, row) for look in (*subject.learned, subject.test) for row in look.extremes]
    for look, row in extremes:
        value = look.extremes[row]
        try:
            with torch.no_grad():
                subject.model(value[None])
        except Exception as error:  # a forward() may raise anything
            raise DataError(
                f"{look.what} has an input, example {row}, of whole numbers from {int(value.min())} to "
                f"{int(value.max())}, and the model cannot answer it ({described(error)}): mend the data, or "
                "make the model's table larger."
            ) from error
    if extremes:
        yield Finding("whole numbers", "ok", "the model answers the least and the largest")


def answers(subject: Subject) -> Iterator[Finding]:
    """Refuse a model whose answers depend on chance, or on what else is in the batch.

    That it does answer, with a finite number for each class, is seen on the way.
    """
    count = len(subject.answers)
    inputs, tolerance = subject.inputs[:count], subject.config.finish.tolerance
    refuse_company(subject.model, inputs, subject.answers, subject.card, tolerance)
    text = f"{count} test inputs in shape {subject.answers.shape}, finite; the same again and one by one"
    yield Finding("answers", "ok", text)


def softmax(subject: Subject) -> Iterator[Finding]:
    """Refuse probabilities where the loss takes their softmax once more."""
    inputs = subject.inputs[: len(subject.answers)]
    if not are_probabilities(subject.model, inputs, subject.answers, subject.card):
        return
    if _is_cross_entropy(subject):
        raise DataError(
            "the model ends in softmax, and cross entropy takes a softmax of its own: return logits from it, "
            "without the last softmax, or give the task a loss() of probabilities."
        )
    yield Finding("softmax", "ok", "the model answers with probabilities, and the task has a loss of its own")


def _is_cross_entropy(subject: Subject) -> bool:
    """Return whether the task's loss is cross entropy, by whatever name."""
    outputs = torch.from_numpy(subject.answers)
    targets = torch.arange(len(outputs)) % len(subject.task.classes)
    entropy = nn.functional.cross_entropy
    if subject.task.loss is entropy:
        return True
    try:
        return bool(torch.isclose(subject.task.loss(outputs, targets), entropy(outputs, targets)))
    except Exception:  # what it raises is another check's to say
        return False
