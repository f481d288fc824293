"""What no file could answer alike is refused before one is written; probabilities are noticed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wash_fl.errors import ExportError
from wash_fl.export import ModelCard, Predictor, export_onnx
from wash_fl.export.metadata import LOGITS, PROBABILITIES
from wash_fl.export.reference import answers, are_probabilities, probes

torch.set_num_threads(1)
CARD = ModelCard(classes=("a", "b", "c"), input_shape=(8,))
INPUTS = torch.randn(17, 8, generator=torch.Generator().manual_seed(1))


class Lambda(nn.Module):
    """A linear layer, and one function for a ``forward``."""

    def __init__(self, forward: Callable[..., torch.Tensor], classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = forward
        self.head = nn.Linear(8, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.function(self.head, inputs)


def bare_batchnorm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3, track_running_stats=False))


def deep_bare_batchnorm() -> nn.Module:
    """Its channels have more than one value, so that a single example is answered."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (2, 4)), nn.BatchNorm1d(2, track_running_stats=False), nn.Flatten(), nn.Linear(8, 3)
    )


def autocast(head: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return head(inputs)


class Counting(nn.Module):
    """Each answer is another than the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        outputs: torch.Tensor = self.head(inputs) + self.calls
        return outputs


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "BatchNorm without statistics": (bare_batchnorm(), "'1' is BatchNorm without running statistics"),
    "the same in the middle": (deep_bare_batchnorm(), "'1' is BatchNorm without running statistics"),
    "mean over the batch": (Lambda(lambda head, x: head(x - x.mean(0))), "mixes the examples of a batch"),
    "softmax over the batch": (Lambda(lambda head, x: head(x.softmax(0))), "mixes the examples of a batch"),
    "sorted batch": (Lambda(lambda head, x: head(x.sort(0).values)), "mixes the examples of a batch"),
    "another model for one": (Lambda(lambda head, x: head(x if len(x) > 1 else -x)), "or branches on their"),
    "dropout that stays": (
        Lambda(lambda head, x: head(nn.functional.dropout(x, 0.5, training=True))),
        "otherwise the second time",
    ),
    "noise": (Lambda(lambda head, x: head(x + torch.randn_like(x))), "otherwise the second time"),
    "counting": (Counting(), "otherwise the second time"),
    "autocast": (Lambda(autocast), "torch.bfloat16, not torch.float32"),
    "autocast inside": (
        Lambda(lambda head, x: autocast(head, x).float()),
        "computes in bfloat16, which devices cannot",
    ),
    "classes' numbers": (
        Lambda(lambda head, x: nn.functional.one_hot(head(x).argmax(1), 3)),
        "torch.int64, not torch.float32",
    ),
    "overflow": (Lambda(lambda head, x: head(x * 1e38) * 1e38), "holds NaN or infinity in PyTorch itself"),
    "branch on a value": (
        Lambda(lambda head, x: head(x) if bool((0 * x[0, 0] + 1) > 0) else -head(x)),
        "test_reference.py:",
    ),
    "no operator": (
        Lambda(lambda head, x: head(x) @ torch.linalg.inv(torch.eye(3) + 0 * head.weight[:3, :3])),
        "ONNX has nothing for aten.linalg_inv",
    ),
    "fixed batch": (
        Lambda(lambda head, x: head(x.view(2, -1, 8).flatten(0, 1) if len(x) % 2 == 0 else x)),
        "for batches of 2 and no others",
    ),
    "an index out of range": (
        Lambda(lambda head, x: head(x)[:, [0, 1, 3]]),
        "IndexError",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("count", [1, 17])
def test_an_export_that_cannot_succeed_is_told_in_one_good_line(
    kind: str, count: int, tmp_path: Path
) -> None:
    model, part = REFUSED[kind]
    with pytest.raises(ExportError) as caught:
        export_onnx(model.eval(), tmp_path / "model.onnx", card=CARD, examples=INPUTS[:count])
    message = str(caught.value)
    assert part in message and "\n" not in message and len(message) < 500
    assert list(tmp_path.iterdir()) == []


# Outputs that are probabilities already

SOFTMAX = Lambda(lambda head, x: head(x).softmax(1))
OUTPUTS: dict[str, tuple[nn.Module, str]] = {
    "logits": (Lambda(lambda head, x: head(x)), LOGITS),
    "softmax": (SOFTMAX, PROBABILITIES),
    "sharp softmax": (Lambda(lambda head, x: (40 * head(x)).softmax(1)), PROBABILITIES),
    "log-softmax": (Lambda(lambda head, x: head(x).log_softmax(1)), LOGITS),
    "sigmoids": (Lambda(lambda head, x: head(x).sigmoid()), LOGITS),
    "centred": (Lambda(lambda head, x: head(x) - head(x).mean(1, keepdim=True) + 1 / 3), LOGITS),
    "rectified": (Lambda(lambda head, x: head(x).relu()), LOGITS),
    "mean of two softmaxes": (
        Lambda(lambda head, x: (head(x).softmax(1) + head(-x).softmax(1)) / 2),
        PROBABILITIES,
    ),
    "sparsemax": (
        Lambda(lambda head, x: head(x).relu().add(1e-6) / head(x).relu().add(1e-6).sum(1, keepdim=True)),
        PROBABILITIES,
    ),
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("count", [1, 2, 17])
def test_outputs_are_called_what_they_are_by_many_examples_and_by_one(kind: str, count: int) -> None:
    model, expected = OUTPUTS[kind]
    inputs = INPUTS[:count]
    result = are_probabilities(model.eval(), inputs, answers(model, inputs, CARD), CARD)
    assert result == (expected == PROBABILITIES)


def test_one_row_that_sums_to_one_by_chance_does_not_decide() -> None:
    """Two classes, and logits that are those of a few examples alone not negative with a sum of 1."""
    card = ModelCard(classes=("a", "b"), input_shape=(8,))
    model = Lambda(lambda head, x: head(x), classes=2).eval()
    with torch.no_grad():
        model.head.weight.copy_(torch.eye(8)[:2])
        model.head.bias.zero_()
    inputs = torch.zeros(3, 8)
    inputs[:, :2] = torch.tensor([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    reference = answers(model, inputs, card)
    assert reference.sum(axis=1) == pytest.approx([1, 1, 1]) and np.ptp(reference, axis=0).min() > 0
    assert not are_probabilities(model, inputs, reference, card)


def test_rows_that_are_all_the_same_do_not_decide() -> None:
    model = Lambda(lambda head, x: 0 * head(x) + torch.tensor([0.2, 0.3, 0.5])).eval()
    assert not are_probabilities(model, INPUTS, answers(model, INPUTS, CARD), CARD)


def test_where_no_more_rows_can_be_made_the_examples_decide() -> None:
    def only_small(head: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.abs().max() > 4:
            raise ValueError("impossible input")
        return head(inputs).softmax(1)

    model = Lambda(only_small).eval()
    assert are_probabilities(model, INPUTS[:3], answers(model, INPUTS[:3], CARD), CARD)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_probabilities_are_the_models_own_and_softmax_is_taken_once(kind: str, tmp_path: Path) -> None:
    model, expected = OUTPUTS[kind]
    path = tmp_path / "model.onnx"
    export_onnx(model.eval(), path, card=CARD, examples=INPUTS)
    predictor = Predictor(path)
    assert predictor.card.outputs == expected
    predictions = predictor.predict(INPUTS.numpy())
    with torch.no_grad():
        outputs = model(INPUTS)
    due = outputs if expected == PROBABILITIES else outputs.softmax(1)
    np.testing.assert_allclose(predictions.probabilities, due, rtol=0, atol=1e-5)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, rtol=0, atol=1e-5)
    if kind == "log-softmax":
        with torch.no_grad():
            np.testing.assert_allclose(predictions.probabilities, model.head(INPUTS).softmax(1), atol=1e-5)


def test_probes_are_like_the_examples_and_not_the_same() -> None:
    tokens = torch.tensor([[1, 50, 7], [2, 60, 7]])
    numbers_of_tokens = probes(tokens, 9)
    assert numbers_of_tokens.dtype == torch.int64 and numbers_of_tokens.shape == (9, 3)
    assert all(
        set(numbers_of_tokens[:, place].tolist()) <= set(tokens[:, place].tolist()) for place in range(3)
    )
    numbers = probes(INPUTS[:2], 9)
    assert numbers.shape == (9, 8) and torch.equal(numbers, probes(INPUTS[:2], 9))
    assert not (numbers[:, None] == INPUTS[None, :2]).all(-1).any()
