"""Whether a device answers with a model file as it should."""

from pathlib import Path

import numpy as np
import pytest

from wash_fl.config import RunConfig
from wash_fl.doctor import Finding, examination, examine
from wash_fl.doctor.model_file import model_file
from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import ModelCard
from wash_fl.export.proof import Proof, put_proof

VERSIONS = {"torch": "2.9.0", "onnxruntime": "1.32.0", "opset": "18"}
CARD = ModelCard(classes=("a", "b", "c"), input_shape=(2, 3))
INPUTS = np.random.default_rng(1).normal(size=(9, 2, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path, write_model) -> Path:
    path = tmp_path / "model.onnx"
    outputs = INPUTS.reshape(9, 6) @ write_model(path, CARD)
    put_proof(path, Proof.of(INPUTS, outputs, tolerance=1e-4, versions=VERSIONS))
    return path


def test_a_model_that_answers_as_it_should_is_well(path: Path) -> None:
    finding = model_file(path)
    assert finding.level == "ok" and str(path) in finding.detail and "8 test vectors" in finding.detail


def test_a_runtime_that_answers_otherwise_is_a_problem(path: Path, monkeypatch) -> None:
    logits = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda self, batch: 2 * logits(self, batch))
    finding = model_file(path)
    assert finding.level == "problem" and "outputs differ by up to" in finding.detail
    assert finding.advice.startswith("install onnxruntime ")


def test_a_damaged_a_missing_and_a_bare_file_are_problems(path: Path, write_model) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(200) + content[300:])
    assert model_file(path).level == "problem" and "damaged" in model_file(path).detail
    path.unlink()
    assert "there is no file" in model_file(path).detail
    write_model(path, CARD)
    assert "carries no test vectors" in model_file(path).detail


def test_it_is_looked_at_when_it_is_given(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(examination, "training", lambda *_: iter([Finding("training step", "ok", "tried")]))
    assert "model file" in [each.name for each in examine(RunConfig(), model=path)]
    assert "model file" not in [each.name for each in examine(RunConfig())]
