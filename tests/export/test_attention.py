"""A layer that holds a mask stays in float32: infinity has no scale, and -1e9 leaves none for the rest."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wash_fl.errors import ExportError
from wash_fl.export import ModelCard, Predictor, export_onnx
from wash_fl.export.int8 import export_int8
from wash_fl.export.quantization import SCHEMES, Quantizer

LENGTH, WIDTH = 6, 48
INFINITY, LEAST = float("inf"), torch.finfo(torch.float32).min


class Attention(nn.Module):
    """Answers with the largest of three features of the position that the last one looks for."""

    def __init__(self, mask: float | str) -> None:
        super().__init__()
        self.mask = mask
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 3)
        with torch.no_grad():
            for each in (self.query, self.key, self.value, self.head):
                each.weight.zero_()
                each.bias.zero_()
            self.query.weight[:LENGTH, 3 : 3 + LENGTH] = 8 * torch.eye(LENGTH)
            self.key.weight[:LENGTH, 9 : 9 + LENGTH] = torch.eye(LENGTH)
            self.value.weight[:3, :3] = torch.eye(3)
            self.head.weight[:, :3] = torch.eye(3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, positions, features) to three logits."""
        query, key, value = self.query(inputs), self.key(inputs), self.value(inputs)
        allowed = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
        if self.mask == "boolean":
            four = (each[:, None] for each in (query, key, value))
            mixed = nn.functional.scaled_dot_product_attention(*four, attn_mask=allowed, scale=1.0)[:, 0]
        else:
            scores = query @ key.transpose(1, 2)
            if isinstance(self.mask, str):
                scores = scores.masked_fill(~allowed, -INFINITY)
            else:
                scores = scores + torch.zeros(LENGTH, LENGTH).masked_fill(~allowed, self.mask)
            mixed = scores.softmax(-1) @ value
        outputs: torch.Tensor = self.head(mixed[:, -1])
        return outputs


def examples(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs whose last position looks for one of the others, and what is there."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.zeros(count, LENGTH, WIDTH)
    inputs[:, :, :3] = torch.rand(count, LENGTH, 3, generator=generator)
    classes = torch.randint(3, (count, LENGTH), generator=generator)
    inputs[:, :, :3] += nn.functional.one_hot(classes, 3)
    inputs[:, :, 9 : 9 + LENGTH] = torch.eye(LENGTH)
    positions = torch.randint(LENGTH, (count,), generator=generator)
    inputs[torch.arange(count), -1, 3 + positions] = 1
    return inputs, classes[torch.arange(count), positions]


Model = tuple[Path, dict[str, np.ndarray]]
ModelWith = Callable[[float | str], Model]


@pytest.fixture(scope="module")
def model_with(tmp_path_factory: pytest.TempPathFactory) -> ModelWith:
    """``model_with(mask)``: a float32 file and what an int8 file is made from."""
    inputs, targets = examples(400)
    data = {"calibration": inputs[:64].numpy(), "inputs": inputs.numpy(), "targets": targets.numpy()}
    card = ModelCard(classes=("a", "b", "c"), input_shape=(LENGTH, WIDTH))

    @functools.cache
    def export(mask: float | str) -> Model:
        path = tmp_path_factory.mktemp("attention") / "model.onnx"
        export_onnx(Attention(mask).eval(), path, card=card, examples=inputs[:8])
        return path, data

    return export


@pytest.mark.parametrize("target", SCHEMES)
def test_a_mask_of_minus_infinity_stays_in_float32_from_the_start(
    tmp_path: Path, model_with: ModelWith, target: str
) -> None:
    model, data = model_with(-INFINITY)
    result = export_int8(model, tmp_path / "q.onnx", target=target, **data)
    assert result.tries == 1 and result.in_float == ("query/Add/2",)
    assert result.judgement.float32_accuracy == 1 and result.judgement.points_lost <= 0.5
    quantization = Predictor(result.model).card.quantization
    assert quantization is not None and quantization.in_float == result.in_float


@pytest.mark.parametrize("mask", [-1e9, LEAST, "boolean"])
@pytest.mark.parametrize("target", SCHEMES)
def test_a_mask_that_leaves_one_step_for_all_scores_is_the_worst_layer(
    tmp_path: Path, model_with: ModelWith, mask: float | str, target: str
) -> None:
    model, data = model_with(mask)
    quantizer = Quantizer(model, data["calibration"], target)
    quantizer.write(tmp_path / "all.onnx")
    answers = Predictor(tmp_path / "all.onnx").predict(data["inputs"]).logits.argmax(axis=1)
    assert np.mean(answers == data["targets"]) < 0.7, "it would not have been ruined"
    worst, second = list(quantizer.harm(64).items())[:2]
    assert worst[0].endswith("/Add/2") and worst[1] > 10 * second[1] and quantizer.unbounded == ()
    result = export_int8(model, tmp_path / "q.onnx", target=target, **data)
    assert result.tries == 2 and result.in_float == (worst[0],) and result.judgement.points_lost <= 0.5


@pytest.mark.parametrize("target", SCHEMES)
def test_a_mask_that_is_filled_in_just_before_softmax_is_in_no_layer(
    tmp_path: Path, model_with: ModelWith, target: str
) -> None:
    model, data = model_with("filled in")
    result = export_int8(model, tmp_path / "q.onnx", target=target, **data)
    assert result.tries == 1 and result.in_float == () and result.judgement.points_lost <= 0.5


def test_a_layer_whose_answers_are_not_finite_does_the_most_harm(
    model_with: ModelWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = model_with("filled in")
    quantizer = Quantizer(model, data["calibration"], "x86")
    logits = Predictor.logits
    layers = iter(["float32", *quantizer.layers])

    def ruined(self: Predictor, batch: np.ndarray) -> np.ndarray:
        answers = logits(self, batch)
        answers[0, 0] = {"head": np.nan, "key": np.inf}.get(next(layers), answers[0, 0])
        return answers

    monkeypatch.setattr(Predictor, "logits", ruined)
    harm = quantizer.harm(64)
    assert set(list(harm)[:2]) == {"head", "key"} and list(harm.values())[:2] == [np.inf, np.inf]


def test_a_model_that_is_all_infinity_has_no_layer_for_int8(
    tmp_path: Path, refused: Callable[..., object]
) -> None:
    class MaskModel(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            """Map (batch, 3) to its softmax without the last, which has no chance."""
            return (inputs + torch.tensor([0.0, 0.0, -INFINITY])).softmax(1)

    inputs = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    card = ModelCard(classes=("a", "b", "c"), input_shape=(3,))
    export_onnx(MaskModel().eval(), tmp_path / "model.onnx", card=card, examples=inputs)
    with refused(ExportError, "no layer that can be in int8", "of finite numbers"):
        Quantizer(tmp_path / "model.onnx", inputs.numpy(), "x86").write(tmp_path / "q.onnx")
