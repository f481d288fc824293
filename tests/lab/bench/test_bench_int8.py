"""The bench of int8 compares the two files that it says it does."""

import json

import pytest

from wash_fl.errors import ConfigError, ExportError
from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import Quantization
from wash_fl.lab.bench import inference, int8


@pytest.fixture
def predictors(monkeypatch):
    """Start no process; the models whose latency is measured."""
    paths = []

    def start(path, threads, sizes):
        paths.append(Predictor(path))
        return {"import_ms": 1.0, "load_ms": 2.0, "first_ms": 3.0, "bytes_before_load": 4} | {
            "peak_bytes": dict.fromkeys(map(str, sizes), 5)
        }

    monkeypatch.setattr(inference, "_start", start)
    return paths


def test_the_second_model_is_the_first_in_int8(predictors):
    figures = int8.run("small-cnn", side=12, target="arm64", batches=[1, 3], repeats=2)
    assert [each["model"] for each in figures["models"]] == ["float32", "int8"]
    assert [each.card.quantization for each in predictors] == [None, Quantization(target="arm64")]
    assert all(each.card.input_shape == (3, 12, 12) for each in predictors)
    first, second = figures["models"]
    assert figures["size_ratio"] == second["file_bytes"] / first["file_bytes"] < 0.4
    assert set(second["batches"]) == {"1", "3"} and second["batches"]["1"]["ratio"] > 0
    assert (figures["activations"], figures["weight_bits"], figures["threads"]) == ("int8", 8, 1)


def test_what_is_not_there_is_refused(predictors, refused):
    with refused(ConfigError, "'resnet19'", "resnet18"):
        int8.run("resnet19")
    with refused(ExportError, "'riscv'", "arm64, x86"):
        int8.run("small-cnn", side=8, target="riscv")
    assert predictors == []


def test_the_command_prints_tables_or_one_object(predictors, wash):
    options = ("bench", "int8", "--model", "small-cnn", "--side", "8", "--repeats", "1", "--target", "x86")
    assert "small-cnn on 8x8, int8 for x86: activations uint8, weights of 7 bits" in wash(*options).out
    content = json.loads(wash(*options, "--json").out)
    assert (content["bench"], content["name"], content["side"], content["repeats"]) == (
        "int8",
        "small-cnn",
        8,
        1,
    )
