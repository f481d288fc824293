"""A file that is given raw values answers as the one that is given them prepared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import wash_fl.export.raw as raw_room
from wash_fl.errors import ExportError
from wash_fl.export import ModelCard, Normalization, Predictor, answer_files, load_inputs, replay
from wash_fl.export.raw import export_raw
from wash_fl.lab.bench import inference

PICTURES = ModelCard(
    classes=("up", "down", "left"),
    input_shape=(3, 4, 5),
    normalization=Normalization(mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26)),
)
READINGS = replace(
    PICTURES, input_shape=(2, 6), normalization=Normalization(mean=(0.0, 1.0), std=(0.7, 1.65))
)
BYTES = np.random.default_rng(1).integers(0, 256, (9, 3, 4, 5), dtype=np.uint8)
WINDOWS = np.random.default_rng(2).normal(size=(9, 2, 6)).astype(np.float32)


@pytest.fixture(params=["pictures", "readings"])
def models(request, tmp_path: Path, write_model):
    """Give the two files' predictors, raw inputs, and the same prepared."""
    card, raw = {"pictures": (PICTURES, BYTES), "readings": (READINGS, WINDOWS)}[request.param]
    write_model(tmp_path / "model.onnx", card)
    assert card.normalization is not None
    pixels = raw / np.float32(255) if raw.dtype == np.uint8 else raw
    prepared = card.normalization.apply(pixels)
    parity = export_raw(tmp_path / "model.onnx", tmp_path / "raw.onnx", examples=prepared)
    assert parity.examples == 9 and parity.agreement == 1.0
    return Predictor(tmp_path / "model.onnx"), Predictor(tmp_path / "raw.onnx"), raw, prepared


def test_raw_values_get_the_answers_of_prepared_ones(models):
    plain, own, raw, prepared = models
    assert own.card == replace(plain.card, raw_inputs=True) and own.card.input_dtype == raw.dtype
    due = plain.predict(prepared).logits
    for size in (1, 4, 9):
        np.testing.assert_allclose(own.predict(raw, batch_size=size).logits, due, rtol=0, atol=1e-5)
    # As a program of another language sees it.
    session = onnxruntime.InferenceSession(str(own.path), providers=["CPUExecutionProvider"])
    (answers,) = session.run(["logits"], {"raw": raw})
    np.testing.assert_allclose(answers, due, rtol=0, atol=1e-5)


def test_the_weights_are_those_of_the_file_it_is_made_of(models):
    plain, own, _, _ = models
    before, after = (onnx.load(each.path).graph.initializer for each in (plain, own))
    assert [each.SerializeToString() for each in before] == [each.SerializeToString() for each in after]


def test_files_are_answered_alike_by_both(models, tmp_path):
    plain, own, raw, _ = models
    if raw.dtype == np.uint8:
        Image.fromarray(raw[0].transpose(1, 2, 0)).save(tmp_path / "one.png")
        file = tmp_path / "one.png"
    else:
        file = tmp_path / "one.csv"
        file.write_text("".join(f"{a},{b}\n" for a, b in raw[0].T))
    np.testing.assert_array_equal(load_inputs([file], own.card), raw[:1])
    (first,), (second,) = (list(answer_files(each, [file])) for each in (plain, own))
    assert first.answers[0].label == second.answers[0].label
    assert first.answers[0].probability == pytest.approx(second.answers[0].probability, abs=1e-6)


def test_arrays_are_given_raw_and_others_are_refused(models, tmp_path):
    _, own, raw, prepared = models
    np.save(tmp_path / "raw.npy", raw)
    np.testing.assert_array_equal(load_inputs([tmp_path / "raw.npy"], own.card), raw)
    with pytest.raises(ExportError, match="give them raw, for the model prepares them itself"):
        own.predict(prepared.astype(np.float64))


def test_both_are_measured_side_by_side(models):
    plain, own, _, _ = models
    figures = inference.run([plain.path, own.path], batches=[2], repeats=3, warm_up=1)
    assert [each["batches"]["2"]["p50_ms"] > 0 for each in figures["models"]] == [True, True]


def test_its_test_vectors_are_raw_with_the_answers_of_the_file_it_is_made_of(models):
    plain, own, raw, prepared = models
    proof = own.proof
    assert proof is not None and proof.inputs.dtype == raw.dtype
    assert replay(own).problem == ""
    due = plain.predict(prepared).logits
    for example, answer in zip(proof.inputs, proof.outputs, strict=True):
        (index,) = np.flatnonzero(np.abs(raw - example).reshape(len(raw), -1).max(axis=1) < 1e-5)
        np.testing.assert_allclose(answer, due[index], rtol=0, atol=1e-5)


# Refused


def test_another_preparation_in_the_graph_is_refused_and_nothing_is_written(
    tmp_path, write_model, monkeypatch
):
    write_model(tmp_path / "model.onnx", PICTURES)
    prepend = raw_room.prepend_preparation

    def other_std(graph, normalization, shape):
        prepend(graph, replace(normalization, std=(0.25, 0.24, 0.27)), shape)

    monkeypatch.setattr(raw_room, "prepend_preparation", other_std)
    prepared = PICTURES.normalization.apply(BYTES / np.float32(255))
    with pytest.raises(ExportError, match="outputs differ"):
        export_raw(tmp_path / "model.onnx", tmp_path / "raw.onnx", examples=prepared)
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_a_model_without_numbers_or_that_is_raw_already_is_refused(models, tmp_path, write_model):
    _, own, _, prepared = models
    with pytest.raises(ExportError, match="be prepared already"):
        export_raw(own.path, tmp_path / "again.onnx", examples=prepared)
    write_model(tmp_path / "bare.onnx", replace(PICTURES, normalization=None))
    with pytest.raises(ExportError, match="must have a normalization"):
        export_raw(tmp_path / "bare.onnx", tmp_path / "again.onnx", examples=prepared)


def test_a_card_that_says_raw_of_a_graph_that_is_not_is_refused(tmp_path, write_model):
    write_model(tmp_path / "model.onnx", replace(PICTURES, raw_inputs=True))
    with pytest.raises(ExportError, match=r"takes tensor\(float\), and its card says tensor\(uint8\)"):
        Predictor(tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="raw_inputs must be false, or true beside a normalization"):
        replace(PICTURES, raw_inputs=True, normalization=None)
