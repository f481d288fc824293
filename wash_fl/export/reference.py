"""What PyTorch itself answers; refused is what no file could answer alike: chance, or the rest of a batch."""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.errors import ExportError
from wash_fl.export.metadata import ModelCard
from wash_fl.export.text import cause_of

ALONE: Final = 8
"""Examples that are answered one at a time, too."""

MANY: Final = 16
"""So many rows that sum to 1 are no coincidence; where there are fewer examples, others are made of them."""

ROUNDING: Final = 1e-5
"""How far outputs may be apart by rounding alone, as a part of the largest."""

REMEDY: Final = "Let each answer depend on its own example alone, for a device asks one at a time."

SUM: Final = 1e-4
"""How far the sum of a row of probabilities may be from 1."""


def answers(model: nn.Module, inputs: torch.Tensor, card: ModelCard) -> NDArray[Any]:
    """Return a model's outputs, of shape ``(len(inputs), classes)``.

    Raises
    ------
    ExportError
        If the model raises, or its outputs are of another shape, of no type that a file could give, or not
        finite.
    """
    try:
        with torch.no_grad():
            outputs = model(inputs)
    except Exception as error:  # a forward() may raise anything
        remedy = _bare_batchnorm(model) or "give a float32 model and inputs as it was trained on"
        raise ExportError(f"the model cannot answer the examples ({cause_of(error)}): {remedy}.") from error
    shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    expected = (len(inputs), len(card.classes))
    if shape != expected:
        raise ExportError(
            f"the model's output is {shape}, not logits of shape {expected}: return one tensor, with one "
            f"column for each of the {len(card.classes)} classes."
        )
    if not outputs.is_floating_point() or outputs.dtype == torch.bfloat16:
        raise ExportError(
            f"the model's output is {outputs.dtype}, not torch.float32: leave torch.autocast and .bfloat16() "
            "to the training loop, and return one number for each class."
        )
    rows: NDArray[Any] = outputs.detach().numpy()
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ExportError(
            f"the model's answer to example {int(finite.argmin())} of {len(rows)} holds NaN or infinity in "
            "PyTorch itself: look for overflow, or a division by zero, in its forward()."
        )
    return rows


def refuse_company(
    model: nn.Module, inputs: torch.Tensor, reference: NDArray[Any], card: ModelCard, tolerance: float
) -> None:
    """Return if an example is answered alike each time, and alone as it is among others.

    Parameters
    ----------
    model : torch.nn.Module
    inputs : torch.Tensor
        At least one example.
    reference : ndarray
        The model's answers to them.
    card : ModelCard
    tolerance : float
        The largest difference between two outputs that is accepted.

    Raises
    ------
    ExportError
        If it is not.
    """
    few = inputs[:ALONE]
    among = reference[:ALONE]
    # PyTorch itself rounds a batch otherwise than one example.
    tolerance = max(tolerance, ROUNDING * float(np.abs(reference).max()))
    if np.abs(answers(model, few, card) - answers(model, few, card)).max() > tolerance:
        raise ExportError(
            "the model answers the same inputs otherwise the second time: in evaluation mode nothing in its "
            "forward() may be random or count, so give functional.dropout training=self.training."
        )
    if len(inputs) == 1:
        among = answers(model, torch.cat([few, probes(few, ALONE)]), card)[:1]
    try:
        alone = np.concatenate([answers(model, each[None], card) for each in few])
    except ExportError as error:
        raise ExportError(
            f"the model answers {len(inputs)} examples at once, and a single one not: {_reason(model)}. "
            f"{REMEDY}"
        ) from error
    difference = np.abs(alone - among).max(axis=1)
    if difference.max() > tolerance:
        raise ExportError(
            f"the model answers example {int(difference.argmax())} otherwise alone than among others, by "
            f"{difference.max():.3g}: {_reason(model)}. {REMEDY}"
        )


def _reason(model: nn.Module) -> str:
    mixes = "its forward() mixes the examples of a batch, or branches on their values or number"
    return _bare_batchnorm(model) or mixes


def _bare_batchnorm(model: nn.Module) -> str:
    """Return which layer takes its statistics from the batch even in evaluation mode; empty if none does."""
    for name, each in model.named_modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.running_mean is None:
            return f"{name!r} is BatchNorm without running statistics (track_running_stats=False)"
    return ""


def are_probabilities(
    model: nn.Module, inputs: torch.Tensor, reference: NDArray[Any], card: ModelCard
) -> bool:
    """Return whether a model's outputs are probabilities: not negative, and each row's sum is 1.

    A few rows may be so by chance, above all of two classes. Where there are few examples the model is asked
    for more rows. Rows that are all the same tell nothing.
    """
    if not _sum_to_one(reference):
        return False
    rows = reference
    if len(inputs) < MANY:
        try:
            rows = np.concatenate([rows, answers(model, probes(inputs, MANY), card)])
        except ExportError:
            # What is made of the examples need not be a possible input: only they can tell.
            rows = reference
    return bool(_sum_to_one(rows) and np.ptp(rows, axis=0).max() > 0)


def _sum_to_one(rows: NDArray[Any]) -> bool:
    sums = rows.sum(axis=1, dtype=np.float64)
    return bool(rows.min() >= 0 and np.abs(sums - 1).max() <= SUM)


def probes(inputs: torch.Tensor, count: int) -> torch.Tensor:
    """Return inputs that are like others but not the same, always the same ones.

    Numbers are scaled and noise is added; of integers each place has a value that it has in some example.
    """
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(len(inputs), (count, *inputs.shape[1:]), generator=generator)
    mixed = inputs.gather(0, indices)
    if not inputs.is_floating_point():
        return mixed
    scale = torch.logspace(-1, 1, count).view(-1, *(1 for _ in inputs.shape[1:]))
    spread = inputs.std(correction=0).clamp(min=1e-3)
    return scale * (mixed + spread * torch.randn(mixed.shape, generator=generator))
