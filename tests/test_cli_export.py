"""``wash-fl export --int8``: what it prints, and what it refuses."""

import json

import numpy as np
import pytest

from wash_fl import cli_export
from wash_fl.config import RunConfig
from wash_fl.report.run_folder import RunFolder

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("up", "[down]")
INPUT_SHAPE = (4,)


def model():
    return nn.Linear(4, 2)


def train_data():
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(inputs, (inputs[:, 0] < inputs[:, 1]).long())


test_data = train_data
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    """A run whose model is right about all but two of its 64 examples, by a little."""
    monkeypatch.setattr(cli_export, "REPEATS", 2)
    (tmp_path / "mine.py").write_text(TASK)
    options = {"task": str(tmp_path / "mine.py"), "run-dir": str(tmp_path), "run-name": "a [b]"}
    folder = RunFolder.create(RunConfig.from_mapping(options))
    weight = np.array([[1, 0, 0.02, 0], [0, 1, 0, 0.02]], dtype=np.float32)
    folder.save_weights({"weight": weight, "bias": np.zeros(2, dtype=np.float32)}, "")
    return folder


def test_a_program_is_given_sizes_accuracies_agreement_and_latencies(wash, run):
    said = wash("export", run.path, "--int8", "--int8-tolerance", "5", "--target", "x86", "--json")
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    assert found["model"] == str(run.path / "model.onnx")
    assert found["agreement"] == 1.0 and found["examples"] == 64
    int8 = found["int8"]
    assert int8["model"] == str(run.path / "model.int8.onnx")
    assert int8["int8_bytes"] == (run.path / "model.int8.onnx").stat().st_size
    assert int8["float32_bytes"] == (run.path / "model.onnx").stat().st_size
    assert (int8["target"], int8["in_float"], int8["tries"], int8["examples"]) == ("x86", [], 1, 64)
    assert min(int8["float32_accuracy"], int8["int8_accuracy"], int8["agreement"]) > 0.9
    assert set(int8["latency"]) == {"1", "32"}
    for row in int8["latency"].values():
        assert set(row) == {"float32_ms", "int8_ms", "ratio", "ratio_p25", "ratio_p75"}
        assert min(row.values()) > 0


def test_a_person_is_given_a_table_and_the_path_of_a_file_that_predict_takes(wash, run, tmp_path):
    target = tmp_path / "there.onnx"
    said = wash("export", run.path, "--int8", "--int8-tolerance", "5", "-o", target, columns=100)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"{target}: largest difference to PyTorch")
    for part in ("there.onnx", "there.int8.onnx", "accuracy", "equal answers", "ms at batch 32"):
        assert part in said.out
    int8 = tmp_path / "there.int8.onnx"
    assert said.out.splitlines()[-1] == str(int8)
    np.save(tmp_path / "x.npy", np.array([[1, 0, 0, 0], [0, 1, 0, 0]], dtype=np.float32))
    predicted = json.loads(wash("predict", int8, tmp_path / "x.npy", "--json").out)["predictions"]
    assert [each["label"] for each in predicted] == ["up", "[down]"]


def test_without_json_the_float32_file_alone_is_one_line_and_with_it_one_object(wash, run):
    assert len(wash("export", run.path).out.splitlines()) == 1
    found = json.loads(wash("export", run.path, "--json").out)
    assert set(found) == {"model", "largest_difference", "examples", "agreement"}
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
    said = wash("export", run.path, *options)
    assert said.status > 0 and len(said.err.splitlines()) == 1
    assert all(part in said.err for part in parts)
    assert not list(run.path.glob("*.onnx"))
