"""``wash-fl predict`` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import ModelCard
from wash_fl.export.normalization import Normalization
from wash_fl.export.proof import Proof, put_proof

VERSIONS = {"torch": "2.9.0", "onnxruntime": "1.32.0", "opset": "18"}
CARD = ModelCard(
    classes=("up", "[down]"), input_shape=(1, 2, 3), normalization=Normalization(mean=(0.5,), std=(0.25,))
)


class Device:
    """A model, and what it must answer."""

    def __init__(self, folder: Path, weight: np.ndarray) -> None:
        self.folder, self.model, self.weight = folder, folder / "model.onnx", weight

    def answer(self, inputs: np.ndarray) -> tuple[str, float]:
        logits = inputs.reshape(6) @ self.weight
        powers = np.exp(logits - logits.max())
        return CARD.classes[int(logits.argmax())], float(powers.max() / powers.sum())

    def image(self, name: str, value: int, size: tuple[int, int] = (3, 2)) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", size, value).save(path)
        return path

    def of_value(self, value: int) -> tuple[str, float]:
        return self.answer(np.full(6, (value / 255 - 0.5) / 0.25))


@pytest.fixture
def device(tmp_path, write_model) -> Device:
    return Device(tmp_path, write_model(tmp_path / "model.onnx", CARD))


def assert_refused(result, *parts: str) -> None:
    assert result.status == 1 and result.out == "", result
    assert len(result.err.splitlines()) == 1 and result.err.startswith("error: "), result.err
    for part in parts:
        assert part in result.err, (part, result.err)


def test_one_image_is_classified_in_one_command(wash, device):
    result = wash("predict", device.model, device.image("a [1].png", 250), columns=200)
    assert (result.status, result.err) == (0, "")
    label, probability = device.of_value(250)
    (row,) = [line for line in result.out.splitlines() if "%" in line]
    assert "a [1].png" in row and label in row and f"{probability:.1%}" in row


def test_a_json_answer_has_the_file_and_the_place_of_each_example(wash, device):
    folder = device.folder / "photos"
    for name, value in {"b.png": 0, "a.png": 255}.items():
        device.image(f"photos/{name}", value)
    (folder / "notes.txt").write_text("")
    batch = np.random.default_rng(1).normal(size=(2, 1, 2, 3)).astype(np.float32)
    np.savez(device.folder / "some.npz", one=batch[0], two=batch)
    result = wash("predict", device.model, folder, device.folder / "some.npz", "--json")
    assert (result.status, len(result.out.splitlines())) == (0, 1)
    assert result.err == f"passed over, of another kind: {folder / 'notes.txt'}\n"
    content = json.loads(result.out)
    archive = str(device.folder / "some.npz")
    expected = [
        ({"file": str(folder / "a.png")}, device.of_value(255)),
        ({"file": str(folder / "b.png")}, device.of_value(0)),
        ({"file": archive, "array": "one"}, device.answer(batch[0])),
        ({"file": archive, "array": "two", "index": 0}, device.answer(batch[0])),
        ({"file": archive, "array": "two", "index": 1}, device.answer(batch[1])),
    ]
    assert content["model"] == str(device.model)
    for entry, (place, (label, probability)) in zip(content["predictions"], expected, strict=True):
        assert entry == place | {"label": label, "probability": pytest.approx(probability, rel=1e-4)}
    assert {label for _, (label, _) in expected} == set(CARD.classes)
    assert (content["refused"], content["passed_over"]) == ([], [str(folder / "notes.txt")])


def test_windows_of_a_table_are_told_by_their_rows_and_the_rest_is_not_hidden(wash, tmp_path, write_model):
    card = ModelCard(
        classes=("rest", "move"), input_shape=(2, 4), normalization=Normalization(mean=(0.0,), std=(1.0,))
    )
    write_model(tmp_path / "model.onnx", card)
    table = tmp_path / "sensor.csv"
    table.write_text("a,b\n" + "".join(f"{number},{number % 3}\n" for number in range(10)))
    result = wash("predict", tmp_path / "model.onnx", table, columns=200)
    assert result.status == 0
    assert [line.split("│")[2].strip() for line in result.out.splitlines() if "%" in line] == [
        "rows 1-4",
        "rows 5-8",
    ]
    assert result.err == f"{table}: the last 2 rows are in no window\n"
    content = json.loads(wash("predict", tmp_path / "model.onnx", table, "--stride", 3, "--json").out)
    assert [each["rows"] for each in content["predictions"]] == [[1, 4], [4, 7], [7, 10]]
    assert content["left_over"] == {}


def test_a_broken_file_does_not_keep_the_others_from_their_answers_and_the_status_says_so(wash, device):
    good, broken = device.image("good.png", 9), device.folder / "broken.png"
    broken.write_bytes(b"no image")
    result = wash("predict", device.model, broken, good, columns=200)
    assert result.status == 1
    assert [line for line in result.out.splitlines() if "%" in line and "good.png" in line]
    assert (
        result.err.startswith("error: ") and "broken.png" in result.err and len(result.err.splitlines()) == 1
    )
    result = wash("predict", device.model, broken, good, "--json")
    content = json.loads(result.out)
    assert result.status == 1 and [each["file"] for each in content["predictions"]] == [str(good)]
    assert [each["file"] for each in content["refused"]] == [str(broken)]
    assert content["refused"][0]["why"] in result.err


def test_an_image_of_another_size_is_refused_unless_it_is_to_be_resized(wash, device):
    large = device.image("large.png", 200, (60, 40))
    assert_refused(wash("predict", device.model, large), "large.png", "60x40", "3x2", "--resize")
    content = json.loads(wash("predict", device.model, large, "--resize", "--json").out)
    assert content["predictions"][0]["label"] == device.of_value(200)[0]


def test_wrong_files_are_refused_in_one_line(wash, device):
    good = device.image("good.png", 9)
    garbage = device.folder / "garbage"
    garbage.write_bytes(b"no model, no array")
    assert_refused(wash("predict", garbage, good), str(garbage), "no ONNX file that wash-fl")
    assert_refused(wash("predict", device.model, garbage), str(garbage), ".png")
    assert_refused(wash("predict", device.model, device.folder / "nothing.npy"), "nothing.npy")
    np.save(device.folder / "wide.npy", np.zeros((2, 5), dtype=np.float32))
    assert_refused(wash("predict", device.model, device.folder / "wide.npy"), "(2, 5)", "(n, 1, 2, 3)")
    (device.folder / "empty").mkdir()
    assert_refused(wash("predict", device.model, device.folder / "empty"), "empty", "no file to read")


def test_odd_values_are_answered_with_a_warning_and_missing_ones_refused(wash, tmp_path, write_model):
    card = ModelCard(
        classes=("rest", "move"),
        input_shape=(2, 2),
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        input_range=(-1.0, 1.0),
        columns=("ax", "ay"),
    )
    write_model(tmp_path / "model.onnx", card)
    table, gap = tmp_path / "sensor.csv", tmp_path / "gap.csv"
    table.write_text("ay,ax\n" + "9.8,0.1\n" * 4)
    gap.write_text("ay,ax\n0,1\n,\n1,0\n")
    result = wash("predict", tmp_path / "model.onnx", table, gap, columns=200)
    assert result.status == 1 and result.out.count("%") == 2
    warning, error = result.err.splitlines()
    assert warning.startswith(f"warning: {table}: 4 of 8 values are far outside")
    assert error.startswith(f"error: {gap}, line 3 has no reading in any column")
    reply = json.loads(wash("predict", tmp_path / "model.onnx", table, gap, "--json").out)
    assert [(each["file"], each["what"]) for each in reply["warnings"]] == [
        (str(table), warning.removeprefix(f"warning: {table}: "))
    ]


def test_a_stride_of_nothing_is_refused(wash, device):
    result = wash("predict", device.model, device.folder / "a.csv", "--stride", 0)
    assert (result.status, result.out) == (2, "") and "--stride" in result.err


# Test vectors


@pytest.fixture
def proven(device) -> Device:
    inputs = np.random.default_rng(3).normal(size=(20, 1, 2, 3)).astype(np.float32)
    outputs = inputs.reshape(20, 6) @ device.weight
    put_proof(device.model, Proof.of(inputs, outputs, tolerance=1e-4, versions=VERSIONS))
    return device


@pytest.fixture
def old_runtime(monkeypatch) -> None:
    """As an old onnxruntime does, answer otherwise than PyTorch."""
    logits = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda self, batch: logits(self, batch) + np.float32([0.5, 0]))


def test_a_model_is_checked_without_inputs_and_before_it_answers(wash, proven):
    result = wash("predict", proven.model, "--check", columns=300)
    assert (result.status, result.err) == (
        0,
        "",
    ) and "8 test vectors answered as they should be" in result.out
    image = proven.image("a.png", 200)
    result = wash("predict", proven.model, image, "--check", columns=300)
    assert (result.status, result.err) == (0, "")
    assert "8 test vectors" in result.out and proven.of_value(200)[0] in result.out
    content = json.loads(wash("predict", proven.model, image, "--check", "--json").out)
    assert content["check"]["problem"] == "" and content["check"]["examples"] == 8
    assert content["predictions"][0]["label"] == proven.of_value(200)[0]
    assert "check" not in json.loads(wash("predict", proven.model, image, "--json").out)


@pytest.mark.usefixtures("old_runtime")
def test_a_model_that_answers_otherwise_here_says_so_and_answers_nothing(wash, proven):
    image = proven.image("a.png", 200)
    for inputs in ([], [image]):
        result = wash("predict", proven.model, *inputs, "--check")
        assert_refused(result, "differ by up to 0.5", "of 8)", "torch 2.9.0", "install onnxruntime")
        result = wash("predict", proven.model, *inputs, "--check", "--json")
        content = json.loads(result.out)
        assert result.status == 1 and len(result.err.splitlines()) == 1
        assert content["predictions"] == [] and content["check"]["problem"] in result.err
    assert wash("predict", proven.model, image).status == 0, "nobody asked"


def test_a_model_without_test_vectors_cannot_be_checked(wash, device):
    assert_refused(
        wash("predict", device.model, "--check"), "carries no test vectors", "export the model again"
    )


def test_inputs_are_needed_unless_the_model_is_checked(wash, device):
    assert_refused(wash("predict", device.model), "no input files are given")


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_file_in_which_200_bytes_are_zeroed_does_not_answer(wash, proven, place):
    image = proven.image("a.png", 200)
    content = bytearray(proven.model.read_bytes())
    start = int(place * len(content))
    content[start : start + 200] = bytes(200)
    proven.model.write_bytes(content)
    assert_refused(wash("predict", proven.model, image), str(proven.model), "opy it again")
