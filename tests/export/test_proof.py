"""The test vectors in a model file: which examples, how large, and what of them is refused. No torch."""

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from wash_fl.errors import ExportError
from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import ModelCard
from wash_fl.export.proof import (
    KEY,
    MOST_BYTES,
    MOST_EXAMPLES,
    Proof,
    prove,
    put_proof,
    quantized_tolerance,
)
from wash_fl.export.seal import check_seal

VERSIONS = {"torch": "2.9.0", "onnxruntime": "1.32.0", "opset": "18"}
CARD = ModelCard(classes=("a", "b", "c"), input_shape=(2, 3))
INPUTS = np.random.default_rng(1).normal(size=(20, 2, 3)).astype(np.float32)
OUTPUTS = np.random.default_rng(2).normal(size=(20, 3)).astype(np.float32)


def proof_of(inputs: np.ndarray, outputs: np.ndarray) -> Proof:
    return Proof.of(inputs, outputs, tolerance=1e-4, versions={"torch": "2.9"})


def metadata_of(proof: Proof) -> dict[str, str]:
    proto = onnx.ModelProto()
    proof.put_into(proto)
    return {each.key: each.value for each in proto.metadata_props}


def read(metadata: dict[str, str], card: ModelCard = CARD) -> Proof:
    proof = Proof.from_metadata(metadata, card)
    assert proof is not None
    return proof


@pytest.mark.parametrize("kind", ["float32", "int64", "int32", "uint8"])
def test_what_was_put_in_is_read_back_bit_for_bit(kind: str) -> None:
    card = ModelCard(classes=CARD.classes, input_shape=(2, 3), input_type=kind)
    inputs = (100 * np.abs(INPUTS)).astype(kind)
    proof = read(metadata_of(proof_of(inputs, OUTPUTS)), card)
    assert proof.inputs.dtype == kind and len(proof.inputs) == MOST_EXAMPLES
    for example, answer in zip(proof.inputs, proof.outputs, strict=True):
        (index,) = np.flatnonzero((inputs == example).all(axis=(1, 2)))
        assert answer.tobytes() == OUTPUTS[index].tobytes()
    assert (proof.tolerance, proof.versions) == (1e-4, {"torch": "2.9"})


def test_a_file_without_test_vectors_has_none() -> None:
    assert Proof.from_metadata({}, CARD) is None


def test_examples_of_different_answers_are_chosen_first() -> None:
    outputs = np.zeros((20, 3), np.float32)
    outputs[:, 1] = 1
    outputs[13] = [5, 0, 0]
    outputs[[17, 19]] = [0, 0, 5]
    proof = proof_of(INPUTS, outputs)
    assert set(proof.outputs.argmax(axis=1)) == {0, 1, 2}
    np.testing.assert_array_equal(proof.inputs[:3], INPUTS[[0, 13, 17]])
    assert len(proof.inputs) == MOST_EXAMPLES


@pytest.mark.parametrize(
    ("side", "least", "most"), [(8, MOST_EXAMPLES, MOST_EXAMPLES), (100, 2, 7), (400, 1, 1)]
)
def test_large_inputs_are_fewer_and_never_none(side: int, least: int, most: int) -> None:
    inputs = np.random.default_rng(3).normal(size=(20, side, side)).astype(np.float32)
    proof = proof_of(inputs, OUTPUTS)
    assert least <= len(proof.inputs) <= most
    if len(proof.inputs) > 1:
        assert len(metadata_of(proof)[KEY]) < MOST_BYTES + 4000


def test_one_example_is_enough() -> None:
    assert len(read(metadata_of(proof_of(INPUTS[:1], OUTPUTS[:1]))).inputs) == 1


def test_a_later_proof_takes_the_place_of_an_earlier_one() -> None:
    proto = onnx.ModelProto()
    proto.metadata_props.add(key="other", value="stays")
    for scale in (1, 2):
        prove(proto, INPUTS, scale * OUTPUTS, tolerance=0.5, versions={"torch": "2.9"})
    assert [each.key for each in proto.metadata_props] == ["other", KEY]
    proof = read({each.key: each.value for each in proto.metadata_props})
    assert proof.outputs[0] in 2 * OUTPUTS
    assert set(proof.versions) == {"torch", "onnx", "onnxruntime", "opset"}


def test_none_is_put_in_if_none_is_wanted_and_more_than_may_be_are_refused() -> None:
    proto = onnx.ModelProto()
    prove(proto, INPUTS, OUTPUTS, tolerance=0.5, versions={}, most=0)
    assert not proto.metadata_props
    prove(proto, INPUTS, OUTPUTS, tolerance=0.5, versions={}, most=2)
    assert len(read({each.key: each.value for each in proto.metadata_props}).inputs) == 2
    for most in (-1, MOST_EXAMPLES + 1):
        with pytest.raises(ExportError, match=f"test_vectors = {most} must be 0 to 8"):
            prove(proto, INPUTS, OUTPUTS, tolerance=0.5, versions={}, most=most)


def test_a_written_file_gets_one_and_is_sealed_again(tmp_path: Path, write_model) -> None:
    path = tmp_path / "model.onnx"
    weight = write_model(path, CARD)
    assert Predictor(path).proof is None
    put_proof(path, Proof.of(INPUTS, INPUTS.reshape(20, 6) @ weight, tolerance=1e-4, versions=VERSIONS))
    check_seal(path)
    predictor = Predictor(path)
    assert predictor.card == CARD and predictor.proof is not None
    assert predictor.proof.versions == VERSIONS


def changed(**parts: object) -> dict[str, str]:
    content = json.loads(metadata_of(proof_of(INPUTS, OUTPUTS))[KEY])
    return {KEY: json.dumps({**content, **parts})}


def packed(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw)).decode()


@pytest.mark.parametrize(
    "metadata",
    [
        {KEY: ""},
        {KEY: "[]"},
        {KEY: "{}"},
        {KEY: "[" * 100_000},
        changed(examples=0),
        changed(examples=True),
        changed(examples=MOST_EXAMPLES + 1),
        changed(examples=3),
        changed(tolerance=0.0),
        changed(tolerance=float("nan")),
        changed(tolerance="1"),
        changed(versions=[]),
        changed(versions={"torch": 2}),
        changed(inputs=None),
        changed(inputs="???"),
        changed(inputs=base64.b64encode(b"no zlib").decode()),
        changed(inputs=packed(b"short")),
        changed(inputs=packed(bytes(8 * 2 * 3 * 4 + 1))),
        changed(inputs=base64.b64encode(zlib.compress(bytes(8 * 2 * 3 * 4))[:-2]).decode()),
        changed(outputs=packed(bytes(10_000_000))),
        changed(outputs=packed(np.full((8, 3), np.nan, np.float32).tobytes())),
    ],
)
def test_a_proof_of_another_form_is_refused_in_one_line(metadata: dict[str, str]) -> None:
    with pytest.raises(ExportError) as caught:
        Proof.from_metadata(metadata, CARD)
    assert KEY in str(caught.value) and len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_a_proof_of_another_model_is_refused() -> None:
    other = ModelCard(classes=("a", "b"), input_shape=(2, 3))
    with pytest.raises(ExportError, match="not the 64 bytes"):
        Proof.from_metadata(metadata_of(proof_of(INPUTS, OUTPUTS)), other)


def test_int8_may_be_as_far_off_elsewhere_as_it_is_from_float32() -> None:
    shifted = OUTPUTS.copy()
    shifted[4, 1] += 0.25
    assert quantized_tolerance(shifted, OUTPUTS) == pytest.approx(0.25)
    assert quantized_tolerance(OUTPUTS, OUTPUTS) == 1e-4
