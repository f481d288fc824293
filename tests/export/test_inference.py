"""Predicting on a device: numpy and onnxruntime, no torch.

The file under test is not an exported one but a graph written by hand, whose answers are known:
``logits = Flatten(input) @ WEIGHT``.
"""

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest

from wash_fl.errors import ExportError
from wash_fl.export.inference import Predictor, evaluate_onnx, load_inputs
from wash_fl.export.metadata import ModelCard
from wash_fl.export.seal import sealed
from wash_fl.extras import install_hint

CARD = ModelCard(
    classes=("cat", "dog", "owl"), input_shape=(2, 2), preprocessing="x / 255", run={"seed": "7"}
)
WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
INPUTS = np.random.default_rng(1).normal(size=(17, 2, 2)).astype(np.float32)
GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[BATCH, 2, 2] input) => (float[BATCH, 3] logits) {
    flat = Flatten (input)
    logits = MatMul (flat, weight)
}"""


def write(path: Path, metadata: dict[str, str] | None = None, batch: str = "batch") -> Path:
    model = onnx.parser.parse_model(GRAPH.replace("BATCH", batch))
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "weight"))
    for key, value in (CARD.to_metadata() if metadata is None else metadata).items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    path.write_bytes(sealed(model))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "model.onnx")


def refusal(function, *args, **options) -> str:
    with pytest.raises(ExportError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_card_is_read_from_the_file(path: Path) -> None:
    assert Predictor(path).card == CARD
    assert Predictor(str(path)).path == path


@pytest.mark.parametrize("batch_size", [1, 5, 17, 64])
def test_answers_do_not_depend_on_the_batch_size(path: Path, batch_size: int) -> None:
    predictions = Predictor(path).predict(INPUTS, batch_size=batch_size)
    expected = INPUTS.reshape(17, 4) @ WEIGHT
    np.testing.assert_allclose(predictions.logits, expected, rtol=0, atol=1e-5)
    assert predictions.labels == tuple(CARD.classes[index] for index in expected.argmax(axis=1))
    assert len(set(predictions.labels)) > 1
    assert predictions.logits.dtype == predictions.probabilities.dtype == np.float32


def test_no_more_examples_than_the_batch_size_are_given_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    run = Predictor.logits

    def counting(self: Predictor, batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return run(self, batch)

    monkeypatch.setattr(Predictor, "logits", counting)
    Predictor(path).predict(INPUTS, batch_size=7)
    assert sizes == [7, 7, 3]


def test_one_example_is_a_batch_of_one(path: Path) -> None:
    predictor = Predictor(path)
    one = predictor.predict(INPUTS[4])
    assert one.logits.shape == (1, 3)
    np.testing.assert_array_equal(one.logits, predictor.predict(INPUTS[4:5]).logits)


def test_inputs_may_be_views_in_any_memory_order(path: Path) -> None:
    predictor = Predictor(path)
    np.testing.assert_array_equal(
        predictor.predict(np.asfortranarray(INPUTS)[::-2]).logits,
        predictor.predict(np.ascontiguousarray(INPUTS[::-2])).logits,
    )


def test_probabilities_are_the_softmax_also_of_large_logits(path: Path) -> None:
    predictor = Predictor(path)
    small = predictor.predict(INPUTS)
    powers = np.exp(small.logits.astype(np.float64))
    np.testing.assert_allclose(small.probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)
    large = predictor.predict(INPUTS * np.float32(1e6))
    assert np.isfinite(large.probabilities).all()
    np.testing.assert_allclose(large.probabilities.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("shape", [(2,), (2, 3), (5, 4), (5, 2, 3), (1, 1, 2, 2), (0, 2, 2), ()])
def test_another_shape_is_refused_with_both_shapes(path: Path, shape: tuple[int, ...]) -> None:
    message = refusal(Predictor(path).predict, np.zeros(shape, np.float32))
    assert str(shape) in message
    assert "(n, 2, 2)" in message


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.float16, ">f4", object])
def test_another_dtype_is_refused_and_not_converted(path: Path, dtype: object) -> None:
    message = refusal(Predictor(path).predict, INPUTS.astype(dtype))
    assert "float32" in message
    assert "card" in message


def test_inputs_that_are_not_finite_are_refused_by_their_index(path: Path) -> None:
    inputs = INPUTS.copy()
    inputs[3, 1, 0] = np.nan
    assert "example 3" in refusal(Predictor(path).predict, inputs)


def test_impossible_threads_and_batch_sizes_are_refused(path: Path) -> None:
    assert "threads = 0" in refusal(Predictor, path, threads=0)
    assert "batch_size = 0" in refusal(Predictor(path).predict, INPUTS, batch_size=0)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "there is no file" in refusal(Predictor, tmp_path / "absent.onnx")
    assert "there is no file" in refusal(Predictor, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello\nworld", bytes(range(256)), pickle.dumps({"a": 1}), b"PK\3\4"]
)
def test_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert str(path) in refusal(Predictor, path)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 7):
        path.write_bytes(content[:length])
        refusal(Predictor, path)


def test_an_onnx_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "foreign.onnx", metadata={"producer": "someone else"})
    message = refusal(Predictor, path)
    assert str(path) in message
    assert "wash_fl.classes" in message


@pytest.mark.parametrize(
    "card",
    [ModelCard(classes=("a", "b"), input_shape=(2, 2)), ModelCard(classes=("a", "b", "c"), input_shape=(4,))],
)
def test_a_card_that_does_not_fit_its_graph_is_refused(tmp_path: Path, card: ModelCard) -> None:
    path = write(tmp_path / "other.onnx", metadata=card.to_metadata())
    assert "its card says" in refusal(Predictor, path)


def test_a_graph_with_a_fixed_batch_is_refused_when_it_is_asked_for_another(tmp_path: Path) -> None:
    predictor = Predictor(write(tmp_path / "fixed.onnx", batch="2"))
    assert predictor.predict(INPUTS[:2]).logits.shape == (2, 3)
    assert "cannot answer 3 examples" in refusal(predictor.predict, INPUTS[:3])


def test_without_onnxruntime_it_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert install_hint("infer") in refusal(Predictor, path)


def test_predicting_needs_no_torch_no_flower_and_no_onnx(path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", INPUTS)
    script = f"""
        import sys
        for name in ("torch", "flwr", "onnx", "onnxscript", "grpc", "google.protobuf"):
            sys.modules[name] = None
        from wash_fl.export.inference import Predictor, load_inputs
        import wash_fl.export
        predictor = wash_fl.export.Predictor({str(path)!r})
        inputs = wash_fl.export.load_inputs([{str(tmp_path / "inputs.npy")!r}], predictor.card)
        print(*predictor.predict(inputs).labels)
        try:
            wash_fl.export.export_onnx
        except ImportError as error:
            print(error.name)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert process.returncode == 0, process.stderr
    labels, missing = process.stdout.splitlines()
    assert labels.split() == list(Predictor(path).predict(INPUTS).labels)
    assert missing == "torch"


def test_accuracy_is_the_fraction_of_right_answers(path: Path) -> None:
    answers = (INPUTS.reshape(17, 4) @ WEIGHT).argmax(axis=1)
    assert evaluate_onnx(path, INPUTS, answers) == 1.0
    targets = answers.copy()
    targets[:5] = (targets[:5] + 1) % 3
    assert evaluate_onnx(path, INPUTS, targets, batch_size=4) == pytest.approx(12 / 17)


@pytest.mark.parametrize(
    "targets",
    [
        np.zeros(16, np.int64),
        np.zeros((17, 1), np.int64),
        np.zeros(17, np.float32),
        np.full(17, 3),
        np.full(17, -1),
        np.zeros(17, bool),
    ],
)
def test_targets_that_are_not_class_indices_are_refused(path: Path, targets: np.ndarray) -> None:
    assert "the targets" in refusal(evaluate_onnx, path, INPUTS, targets)


def test_input_files_of_one_example_and_of_batches_become_one_batch_in_order(tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", INPUTS[:3])
    np.save(tmp_path / "one.npy", INPUTS[3])
    np.save(tmp_path / "fortran.npy", np.asfortranarray(INPUTS[4:6]))
    loaded = load_inputs([tmp_path / "many.npy", str(tmp_path / "one.npy"), tmp_path / "fortran.npy"], CARD)
    np.testing.assert_array_equal(loaded, INPUTS[:6])
    assert loaded.dtype == np.float32


def test_no_input_files_are_refused() -> None:
    assert "no input files" in refusal(load_inputs, [], CARD)


def test_a_missing_input_file_is_refused(tmp_path: Path) -> None:
    message = refusal(load_inputs, [tmp_path / "absent.npy"], CARD)
    assert "absent.npy" in message
    assert "No such file" in message


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float32), np.zeros((1, 2, 3), np.float32), INPUTS[:0]])
def test_an_input_file_of_another_shape_is_refused_by_its_name(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "odd.npy", array)
    message = refusal(load_inputs, [tmp_path / "odd.npy"], CARD)
    assert "odd.npy" in message
    assert str(array.shape) in message


def test_an_input_file_of_another_dtype_is_refused_and_not_promoted(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", INPUTS)
    np.save(tmp_path / "raw.npy", np.zeros((1, 2, 2), np.uint8))
    message = refusal(load_inputs, [tmp_path / "good.npy", tmp_path / "raw.npy"], CARD)
    assert "raw.npy" in message
    assert "uint8" in message


class Trap:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_an_object_array_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    np.save(tmp_path / "objects.npy", np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    (tmp_path / "pickled.npy").write_bytes(pickle.dumps(Trap(sprung)))
    for name in ("objects.npy", "pickled.npy"):
        assert name in refusal(load_inputs, [tmp_path / name], CARD)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"1.0 2.0\n3.0 4.0\n"])
def test_a_file_that_is_not_npy_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text.npy").write_bytes(content)
    assert "text.npy" in refusal(load_inputs, [tmp_path / "text.npy"], CARD)


def test_an_input_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.npy"
    np.save(path, INPUTS)
    content = path.read_bytes()
    for length in (3, 40, 100, 130, len(content) - 1):
        path.write_bytes(content[:length])
        assert "cut.npy" in refusal(load_inputs, [path], CARD)
