"""A model file's test vectors are answered on the device, and what is off is said. No torch.

The runtime that answers otherwise is a fake one: what an old onnxruntime does is done by hand.
"""

from pathlib import Path

import numpy as np
import pytest

from wash_fl.errors import ExportError
from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import ModelCard
from wash_fl.export.proof import Proof, put_proof
from wash_fl.export.replay import replay

VERSIONS = {"torch": "2.9.0", "onnxruntime": "1.32.0", "opset": "18"}
CARD = ModelCard(classes=("a", "b", "c"), input_shape=(2, 3))
INPUTS = np.random.default_rng(1).normal(size=(20, 2, 3)).astype(np.float32)


@pytest.fixture
def predictor(tmp_path: Path, write_model) -> Predictor:
    path = tmp_path / "model.onnx"
    outputs = INPUTS.reshape(20, 6) @ write_model(path, CARD)
    put_proof(path, Proof.of(INPUTS, outputs, tolerance=1e-4, versions=VERSIONS))
    return Predictor(path)


def faked(monkeypatch: pytest.MonkeyPatch, change) -> None:
    logits = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda self, batch: change(logits(self, batch)))


def test_right_answers_have_no_problem(predictor: Predictor) -> None:
    result = replay(predictor)
    assert (result.problem, result.advice, result.examples) == ("", "", 8)
    assert result.largest_difference is not None and result.largest_difference < 1e-5
    assert result.here["onnxruntime"] == predictor.runtime and result.checked == VERSIONS
    assert "8 test vectors" in result.summary


def test_another_answer_is_told_with_its_example_its_size_and_all_versions(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_of_one(logits: np.ndarray) -> np.ndarray:
        if len(logits) > 1:
            logits[5, 1] += 0.25
        return logits

    faked(monkeypatch, half_of_one)
    predictor.runtime = "1.19.2"
    result = replay(predictor)
    assert result.worst_example == 5 and result.largest_difference == pytest.approx(0.25, abs=1e-4)
    for part in (
        str(predictor.path),
        "example 5 of 8",
        "0.25",
        "1.19.2",
        "torch 2.9.0",
        "onnxruntime 1.32.0",
        "opset 18",
    ):
        assert part in result.problem
    assert result.message.endswith(": install onnxruntime 1.32.0.")
    assert "\n" not in result.message


def test_a_runtime_that_is_right_for_many_and_wrong_for_one_is_noticed(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch, lambda logits: logits if len(logits) > 1 else logits * 2)
    assert "outputs differ" in replay(predictor).problem


def test_answers_that_are_not_finite_are_off_and_are_no_number_in_json(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch, lambda logits: logits * np.float32(np.nan))
    result = replay(predictor)
    assert "not finite" in result.problem and result.largest_difference is None


def test_a_difference_within_the_tolerance_is_none(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch, lambda logits: logits + np.float32(5e-5))
    assert replay(predictor).problem == ""


def test_a_file_without_test_vectors_cannot_be_checked(tmp_path: Path, write_model) -> None:
    write_model(tmp_path / "model.onnx", CARD)
    with pytest.raises(ExportError, match="carries no test vectors"):
        replay(Predictor(tmp_path / "model.onnx"))
