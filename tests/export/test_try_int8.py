"""Whether a model can be quantized at all is known before it is trained."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wash_fl.errors import ExportError
from wash_fl.export.inference import Predictor
from wash_fl.export.int8 import export_int8, try_int8
from wash_fl.export.metadata import ModelCard
from wash_fl.export.quantization import SCHEMES, Quantizer
from wash_fl.export.seal import sealed


def write(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], card: ModelCard) -> Path:
    """Write a graph from ``input`` to ``logits`` by hand."""
    kind = helper.np_dtype_to_tensor_dtype(card.input_dtype)
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("input", kind, ["n", *card.input_shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(card.classes)])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, card.to_metadata())
    path.write_bytes(sealed(model))
    return path


@pytest.fixture
def linear(tmp_path: Path, write_model: Callable[[Path, ModelCard], object]) -> Path:
    write_model(tmp_path / "model.onnx", ModelCard(classes=("a", "b"), input_shape=(4000,)))
    return tmp_path / "model.onnx"


def test_a_model_that_can_be_quantized_leaves_no_trace(linear: Path) -> None:
    for target in ("x86", "arm64"):
        try_int8(linear, np.ones((2, 4000), dtype=np.float32), target)
    assert [path.name for path in linear.parent.iterdir()] == ["model.onnx"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A model of 500 words that answers with the mean of their embeddings."""
    draws = np.random.default_rng(0)
    card = ModelCard(classes=("a", "b", "c"), input_shape=(5,), input_type="int64")
    nodes = [
        helper.make_node("Gather", ["embedding.weight", "input"], ["words"]),
        helper.make_node("ReduceMean", ["words", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "head.weight"], ["logits"], transB=1),
    ]
    weights = {
        "embedding.weight": draws.normal(size=(500, 8)).astype(np.float32),
        "head.weight": draws.normal(size=(3, 8)).astype(np.float32),
        "axes": np.array([1]),
    }
    return write(tmp_path / "text.onnx", nodes, weights, card)


@pytest.mark.parametrize("target", SCHEMES)
def test_a_model_that_takes_the_numbers_of_words_has_its_table_in_int8(text: Path, target: str) -> None:
    words = np.random.default_rng(1).integers(500, size=(300, 5))
    try_int8(text, words[:4], target)
    before = Predictor(text).predict(words).logits
    result = export_int8(
        text,
        text.with_name("q.onnx"),
        target=target,
        calibration=words,
        inputs=words,
        targets=before.argmax(axis=1),
        tolerance=2,
    )
    assert result.in_float == () and result.int8_bytes < result.float32_bytes / 2
    arrays = {each.name: each for each in onnx.load(result.model).graph.initializer}
    assert arrays["embedding.weight_quantized"].data_type in {TensorProto.INT8, TensorProto.UINT8}
    after = Predictor(result.model).predict(words).logits
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()


@pytest.mark.parametrize("target", SCHEMES)
def test_a_model_that_ends_in_softmax_answers_with_probabilities_in_int8(tmp_path: Path, target: str) -> None:
    draws = np.random.default_rng(0)
    card = ModelCard(classes=("a", "b"), input_shape=(2000,), outputs="probabilities")
    nodes = [
        helper.make_node("Gemm", ["input", "head.weight"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["logits"]),
    ]
    weights = {"head.weight": draws.normal(size=(2, 2000), scale=0.1).astype(np.float32)}
    inputs = draws.normal(size=(64, 2000)).astype(np.float32)
    model = write(tmp_path / "model.onnx", nodes, weights, card)
    try_int8(model, inputs, target)
    Quantizer(model, inputs, target).write(tmp_path / "q.onnx")
    before, after = (Predictor(tmp_path / name).predict(inputs).logits for name in ("model.onnx", "q.onnx"))
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-6)
    assert 0 < np.abs(before - after).max() < 0.1
    assert Predictor(tmp_path / "q.onnx").card.outputs == "probabilities"


def test_infinity_in_a_weight_that_calibration_does_not_meet_keeps_its_layer_in_float32(
    tmp_path: Path,
) -> None:
    card = ModelCard(classes=("a", "b"), input_shape=(1,), input_type="int64")
    nodes = [
        helper.make_node("Gather", ["table.weight", "input"], ["words"]),
        helper.make_node("ReduceMax", ["words", "axes"], ["most"], keepdims=0),
        helper.make_node("Gemm", ["most", "head.weight"], ["logits"]),
    ]
    table = np.array([[1, 2], [3, 1], [-np.inf, 4]], dtype=np.float32)
    weights = {"table.weight": table, "head.weight": np.eye(2, dtype=np.float32), "axes": np.array([1])}
    model = write(tmp_path / "model.onnx", nodes, weights, card)
    quantizer = Quantizer(model, np.array([[0], [1]]), "x86")
    assert quantizer.unbounded == ("table",) and quantizer.layers == ("table", "head")
    assert quantizer.write(tmp_path / "q.onnx") == ("table",)


def test_a_model_without_a_layer_for_int8_is_refused(tmp_path: Path, refused: Callable[..., object]) -> None:
    nodes = [helper.make_node("Softmax", ["input"], ["logits"])]
    model = write(tmp_path / "m.onnx", nodes, {}, ModelCard(classes=("a", "b"), input_shape=(2,)))
    with refused(ExportError, "m.onnx", "no layer that can be in int8", "use the float32 file"):
        try_int8(model, np.ones((2, 2), dtype=np.float32), "x86")


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        (np.ones((0, 4000), dtype=np.float32), "shape (0, 4000)"),
        (np.ones((2, 5), dtype=np.float32), "shape (2, 5)"),
        (np.ones((2, 4000)), "float64"),
        (np.full((2, 4000), np.nan, dtype=np.float32), "NaN"),
    ],
)
def test_calibration_inputs_that_do_not_fit_the_model_are_refused(
    linear: Path, refused: Callable[..., object], inputs: np.ndarray, part: str
) -> None:
    with refused(ExportError, "the calibration inputs", part):
        try_int8(linear, inputs, "x86")


def test_an_error_of_the_quantizer_is_one_line_and_nothing_else_is_printed(
    linear: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    refused: Callable[..., object],
) -> None:
    def failing(*_: object, **__: object) -> None:
        logging.getLogger("onnxruntime.quantization.shape_inference").error("Traceback ...")
        exec(compile("logging.warning('a type')", "onnxruntime/quantization/qdq.py", "exec"), globals())
        raise RuntimeError("Unsupported\n  more of it")

    monkeypatch.setattr("wash_fl.export.quantization.prepare", failing)
    with refused(ExportError, "onnxruntime cannot quantize", "model.onnx (Unsupported)"):
        Quantizer(linear, np.ones((2, 4000), dtype=np.float32), "x86")
    assert capfd.readouterr() == ("", "") and caplog.records == []
