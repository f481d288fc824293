"""``wash-fl export --int8``: what it prints, and what it refuses."""

import json
import re

import numpy as np
import pytest

from wash_fl.config import RunConfig
from wash_fl.export import Predictor, int8
from wash_fl.export.quantization import this_target
from wash_fl.runs.folder import RunFolder

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("up", "[down]")
INPUT_SHAPE = (4,)


def model():
    return nn.Sequential(nn.Linear(4, 400), nn.Linear(400, 2))  # smaller in int8, as a small one is not


def train_data():
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(inputs, (inputs[:, 0] < inputs[:, 1]).long())


test_data = train_data
"""


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run whose model is right about all but two of its 64 examples, by a little."""
    (tmp_path / "mine.py").write_text(TASK)
    options = {"task": str(tmp_path / "mine.py"), "run-dir": str(tmp_path), "run-name": "a [b]"}
    folder = RunFolder.create(RunConfig.from_mapping(options))
    weights = {"0.weight": np.zeros((400, 4)), "0.bias": np.zeros(400)}
    weights |= {"1.weight": np.eye(2, 400), "1.bias": np.zeros(2)}
    weights["0.weight"][:2] = [[1, 0, 0.02, 0], [0, 1, 0, 0.02]]
    folder.save_weights({name: each.astype(np.float32) for name, each in weights.items()})
    return folder


def test_a_program_is_given_sizes_accuracies_agreement_and_latencies(wash, run):
    result = wash("export", run.path, "--int8", "--int8-tolerance", "5", "--target", "x86", "--json")
    assert (result.status, result.err) == (0, "")
    content = json.loads(result.out)
    assert content["model"] == str(run.path / "model.onnx")
    assert content["agreement"] == 1.0 and content["examples"] == 64
    quantized = content["int8"]
    assert quantized["model"] == str(run.path / "model.int8.onnx")
    assert quantized["int8_bytes"] == (run.path / "model.int8.onnx").stat().st_size
    assert quantized["float32_bytes"] == (run.path / "model.onnx").stat().st_size
    expected = {"target": "x86", "in_float": [], "tries": 1, "examples": 64, "unseen": []}
    expected |= {"tolerance": 5, "may_change": 32, "not_finite": 0}
    assert {name: quantized[name] for name in expected} == expected
    assert min(quantized["float32_accuracy"], quantized["int8_accuracy"], quantized["agreement"]) > 0.9
    assert [each["name"] for each in quantized["classes"]] == ["up", "[down]"]
    assert sum(each["examples"] for each in quantized["classes"]) == 64
    worst = quantized["worst_class"]
    assert worst["int8_recall"] == worst["int8_right"] / worst["examples"] <= worst["float32_recall"]
    assert worst["may_lose"] >= 1
    assert set(quantized["latency"]) == {"1", "32"}
    for row in quantized["latency"].values():
        assert set(row) == {"float32_ms", "int8_ms", "ratio", "ratio_p25", "ratio_p75"}
        assert min(row.values()) > 0


def test_a_person_is_given_a_table_and_the_path_of_a_file_that_predict_takes(wash, run, tmp_path):
    target = tmp_path / "there.onnx"
    result = wash("export", run.path, "--int8", "--int8-tolerance", "5", "-o", target, columns=100)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"{target}: largest difference to PyTorch")
    for part in ("there.onnx", "there.int8.onnx", "accuracy", "equal answers", "ms at batch 32"):
        assert part in result.out
    assert re.search(r"recall, worst class: (up|\[down\]) \(\d\d examples\)", result.out)
    beside = tmp_path / "there.int8.onnx"
    assert result.out.splitlines()[-1] == str(beside)
    np.save(tmp_path / "x.npy", np.array([[1, 0, 0, 0], [0, 1, 0, 0]], dtype=np.float32))
    predicted = json.loads(wash("predict", beside, tmp_path / "x.npy", "--json").out)["predictions"]
    assert [each["label"] for each in predicted] == ["up", "[down]"]


def test_without_json_the_float32_file_alone_is_one_line_and_with_it_one_object(wash, run):
    assert len(wash("export", run.path).out.splitlines()) == 1
    content = json.loads(wash("export", run.path, "--json").out)
    assert set(content) == {"model", "largest_difference", "examples", "agreement"}
    assert not (run.path / "model.int8.onnx").exists()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--target", "x86"], ["--target", "--int8"]),
        (["--int8-tolerance", "1"], ["--int8-tolerance", "--int8"]),
        (["--int8", "--target", "riscv"], ["'riscv'", "arm64, x86"]),
        (["--int8", "--int8-tolerance", "-1"], ["'--int8-tolerance'", "-1.0", "100"]),
    ],
)
def test_what_is_not_allowed_is_refused_on_one_line(wash, run, options, parts):
    result = wash("export", run.path, *options)
    assert result.status > 0 and len(result.err.splitlines()) == 1
    assert all(part in result.err for part in parts)
    assert not list(run.path.glob("*.onnx"))


def test_a_class_that_loses_is_named_with_what_it_may_lose_and_one_that_was_not_seen_too(
    wash, run, monkeypatch
):
    judge = int8.judge

    def losing(logits, reference, targets, classes, tolerance):
        mask = targets == 1
        logits = logits[mask]
        logits[0] = logits[0, ::-1]
        return judge(logits, reference[mask], targets[mask], classes, tolerance)

    monkeypatch.setattr(int8, "judge", losing)
    result = wash("export", run.path, "--int8", "--int8-tolerance", "5", columns=100)
    assert result.status == 0
    assert re.search(
        r"the class that loses most is \[down\]: 1 of its \d\d examples, and may lose \d", result.out
    )
    assert "not judged, for the test data have no example of them: up" in result.out


def test_a_model_that_int8_makes_larger_is_refused_on_one_line_and_its_float32_file_stays(wash, tmp_path):
    (tmp_path / "small.py").write_text(TASK.replace("400", "4"))
    options = {"task": str(tmp_path / "small.py"), "run-dir": str(tmp_path), "run-name": "small"}
    folder = RunFolder.create(RunConfig.from_mapping(options))
    eye = {"0.weight": np.eye(4), "0.bias": np.zeros(4), "1.weight": np.eye(2, 4), "1.bias": np.zeros(2)}
    folder.save_weights({name: each.astype(np.float32) for name, each in eye.items()})
    other = "x86" if this_target() == "arm64" else "arm64"  # nothing is timed for it here
    result = wash("export", folder.path, "--int8", "--int8-tolerance", "5", "--target", other)
    assert result.status > 0 and len(result.err.splitlines()) == 1 and "int8 gains nothing" in result.err
    assert [path.name for path in folder.path.glob("*.onnx")] == ["model.onnx"]


def test_a_file_carries_as_many_test_inputs_as_are_wanted_and_int8_as_many_as_it(wash, run):
    for count in (0, 2):
        result = wash("export", run.path, "--test-vectors", count, "--int8", "--int8-tolerance", "5")
        assert result.status == 0, result.err
        for name in ("model.onnx", "model.int8.onnx"):
            proof = Predictor(run.path / name).proof
            assert (0 if proof is None else len(proof.inputs)) == count
