"""Integers as inputs: numbers of tokens, categories, bytes; from the export to all that answers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wash_fl.consensus.evaluate import MeanOfLogits
from wash_fl.errors import ExportError
from wash_fl.export import (
    ModelCard,
    Normalization,
    Predictor,
    evaluate_onnx,
    export_onnx,
    load_inputs,
    replay,
)
from wash_fl.lab.bench import inference

torch.set_num_threads(1)
WORDS, LENGTH = 30, 7
CARD = ModelCard(classes=("a", "b", "c"), input_shape=(LENGTH,))
TOKENS = torch.randint(0, WORDS, (17, LENGTH), generator=torch.Generator().manual_seed(1))


class Text(nn.Module):
    """Embeds tokens, and reads them with a recurrent layer or with attention."""

    def __init__(self, reader: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS, 6)
        self.reader, self.head = reader(), nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        read = self.reader(self.embedding(tokens.long()))
        outputs: torch.Tensor = self.head((read[0] if isinstance(read, tuple) else read)[:, -1])
        return outputs


class Pixels(nn.Module):
    """Prepares bytes itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(LENGTH, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(inputs.float() / 255)
        return outputs


def plain() -> nn.Module:
    return Text(nn.Identity)


READERS: dict[str, Callable[[], nn.Module]] = {
    "embedding": plain,
    "LSTM": lambda: Text(lambda: nn.LSTM(6, 6, batch_first=True)),
    "GRU": lambda: Text(lambda: nn.GRU(6, 6, num_layers=2, batch_first=True)),
    "transformer": lambda: Text(lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_model_of_text_answers_any_batch_as_pytorch(kind: str, tmp_path: Path) -> None:
    model = READERS[kind]().eval()
    path = tmp_path / "model.onnx"
    export_onnx(model, path, card=CARD, examples=TOKENS)
    predictor = Predictor(path)
    assert predictor.card.input_type == "int64"
    assert predictor.card.input_range == (float(TOKENS.min()), float(TOKENS.max()))
    unseen = torch.randint(0, WORDS, (9, LENGTH), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        due = model(unseen).numpy()
    for size in (1, 4, 9):
        logits = predictor.predict(unseen.numpy(), batch_size=size).logits
        np.testing.assert_allclose(logits, due, rtol=0, atol=1e-5)
    assert replay(predictor).problem == ""


@pytest.mark.parametrize(
    ("kind", "model"),
    [(torch.int64, plain), (torch.int32, plain), (torch.uint8, plain), (torch.uint8, Pixels)],
)
def test_the_type_of_the_examples_is_recorded_and_asked_for(
    kind: torch.dtype, model: Callable[[], nn.Module], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    examples = TOKENS.to(kind)
    export_onnx(model().eval(), path, card=CARD, examples=examples)
    predictor = Predictor(path)
    name = str(kind).removeprefix("torch.")
    assert predictor.card.input_type == name and predictor.proof.inputs.dtype == name
    np.save(tmp_path / "inputs.npy", examples.numpy())
    inputs = load_inputs([tmp_path / "inputs.npy"], predictor.card)
    labels = predictor.predict(inputs).labels
    targets = np.array([CARD.classes.index(label) for label in labels])
    assert evaluate_onnx(path, inputs, targets) == 1.0
    with pytest.raises(ExportError, match=f"float32, not {name}"):
        predictor.predict(TOKENS.numpy().astype(np.float32))


def test_the_ensemble_of_models_of_text_is_one_file(tmp_path: Path) -> None:
    members = [plain().eval(), plain().eval()]
    with torch.no_grad():
        members[1].embedding.weight += 0.5
        due = sum(member(TOKENS) for member in members) / 2
    export_onnx(MeanOfLogits(members).eval(), tmp_path / "all.onnx", card=CARD, examples=TOKENS)
    np.testing.assert_allclose(
        Predictor(tmp_path / "all.onnx").predict(TOKENS.numpy()).logits, due, atol=1e-5
    )


def test_it_is_measured_on_its_test_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(plain().eval(), path, card=CARD, examples=TOKENS + 0)
    batches = []
    logits = Predictor.logits

    def noting(self: Predictor, batch: np.ndarray) -> np.ndarray:
        batches.append(batch)
        return logits(self, batch)

    monkeypatch.setattr(Predictor, "logits", noting)
    figures = inference.run([path], batches=[1, 20], repeats=2, warm_up=0)
    assert figures["models"][0]["check"]["problem"] == ""
    assert batches[-1].shape == (20, LENGTH) and batches[-1].dtype == np.int64
    examples = {tuple(each) for each in TOKENS.tolist()}
    assert {tuple(each) for each in batches[-1].tolist()} <= examples


@pytest.mark.parametrize(
    ("card", "examples", "part"),
    [
        (replace(CARD, input_type="int32"), TOKENS, "not int32 of shape"),
        (CARD, TOKENS.to(torch.int16), "torch.int16"),
        (CARD, TOKENS > 3, "torch.bool"),
        (CARD, TOKENS.double(), "float32 or int64 or int32 or uint8"),
        (replace(CARD, normalization=Normalization(mean=(0.0,), std=(1.0,))), TOKENS, "not float32 of shape"),
    ],
)
def test_examples_of_another_type_are_refused(
    card: ModelCard, examples: torch.Tensor, part: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        export_onnx(plain().eval(), tmp_path / "model.onnx", card=card, examples=examples)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_a_token_that_the_embedding_does_not_know_is_told_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"cannot answer the examples \(IndexError: .*, at test_integers\.py:"
    ):
        export_onnx(plain().eval(), tmp_path / "model.onnx", card=CARD, examples=TOKENS + WORDS)
