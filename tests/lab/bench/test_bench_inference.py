"""Latency, start and memory of exported models: what is measured, in which order, and what is refused."""

import json
import subprocess
import sys
from io import StringIO

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from wash_fl.errors import ConfigError, ExportError, RunError
from wash_fl.export import latency
from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import ModelCard
from wash_fl.export.normalization import Normalization
from wash_fl.export.proof import Proof, put_proof
from wash_fl.lab.bench import inference, inference_start
from wash_fl.lab.bench.inference_tables import tables

VERSIONS = {"torch": "2.9.0", "onnxruntime": "1.32.0", "opset": "18"}
CARD = ModelCard(
    classes=("a", "b"), input_shape=(1, 2, 3), normalization=Normalization(mean=(0.5,), std=(0.25,))
)
START = {"import_ms": 1.0, "load_ms": 2.0, "first_ms": 3.0, "bytes_before_load": 4}


@pytest.fixture
def models(tmp_path, write_model):
    paths = [tmp_path / "a.onnx", tmp_path / "[b].onnx"]
    for path in paths:
        write_model(path, CARD)
    return paths


@pytest.fixture
def quick(monkeypatch):
    """Start no process, and note every batch that a model is given."""
    monkeypatch.setattr(
        inference,
        "_start",
        lambda model, threads, sizes: START | {"peak_bytes": dict.fromkeys(map(str, sizes), 5)},
    )
    batches = []
    logits = Predictor.logits

    def noting(self, batch):
        batches.append((self.path.name, batch.copy()))
        return logits(self, batch)

    monkeypatch.setattr(Predictor, "logits", noting)
    return batches


@pytest.fixture
def clock(monkeypatch):
    """A clock by which a model takes as many seconds as its file's name has in ``costs``."""
    now = [0.0]
    costs: dict[str, float] = {}
    logits = Predictor.logits

    def taking(self, batch):
        now[0] += costs[self.path.name]
        return logits(self, batch)

    monkeypatch.setattr(Predictor, "logits", taking)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    return costs


def test_models_take_turns_and_the_first_of_a_turn_changes(models, quick):
    inference.run(models, batches=[2], repeats=3, warm_up=1)
    assert [name for name, _ in quick] == [
        *("a.onnx", "[b].onnx"),
        *("[b].onnx", "a.onnx"),
        *("a.onnx", "[b].onnx"),
        *("[b].onnx", "a.onnx"),
    ]


def test_batches_are_measured_by_size_on_inputs_of_the_seed(models, quick):
    inference.run(models[:1], batches=[4, 1, 4], repeats=1, warm_up=0, seed=3)
    assert [batch.shape for _, batch in quick] == [(1, 1, 2, 3), (4, 1, 2, 3)]
    assert quick[0][1].dtype == np.float32
    np.testing.assert_array_equal(quick[0][1], quick[1][1][:1])
    first = quick[1][1]
    quick.clear()
    inference.run(models[:1], batches=[4], repeats=1, warm_up=0, seed=3)
    np.testing.assert_array_equal(quick[0][1], first)
    quick.clear()
    inference.run(models[:1], batches=[4], repeats=1, warm_up=0, seed=4)
    assert not np.array_equal(quick[0][1], first)


def test_given_inputs_are_repeated_as_whole_examples(models, quick, tmp_path):
    for number, value in enumerate((0, 255)):
        Image.new("L", (3, 2), value).save(tmp_path / f"{number}.png")
    inference.run(models[:1], batches=[3], repeats=1, warm_up=0, inputs=[tmp_path])
    ((_, batch),) = quick
    assert [np.unique(each).tolist() for each in batch] == [[-2], [2], [-2]]


def test_percentiles_rate_and_paired_ratio_follow_from_the_measured_turns(models, quick, clock):
    clock |= {"a.onnx": 0.002, "[b].onnx": 0.001}
    figures = inference.run(models, batches=[1, 10], repeats=5, warm_up=2)
    first, second = (each["batches"]["10"] for each in figures["models"])
    assert [first[f"p{percent}_ms"] for percent in (50, 90, 99)] == pytest.approx([2, 2, 2])
    assert first["examples_per_second"] == pytest.approx(5000)
    assert (first["ratio"], second["ratio"]) == (pytest.approx(1), pytest.approx(0.5))
    assert second["ratio_p25"] == second["ratio_p75"] == pytest.approx(0.5)
    assert set(figures["models"][0]["batches"]) == {"1", "10"}


def test_turns_to_warm_up_are_not_in_the_figures(models, quick, monkeypatch):
    """Of turns of 100, 1, 2, 3 s the first is not counted."""
    seconds = iter([0, 100, 100, 101, 101, 103, 103, 106])
    monkeypatch.setattr(latency.time, "perf_counter", lambda: float(next(seconds)))
    figures = inference.run(models[:1], batches=[1], repeats=3, warm_up=1)
    measured = figures["models"][0]["batches"]["1"]
    assert (measured["p50_ms"], measured["mean_ms"]) == (2000, 2000)


def test_a_start_is_measured_in_a_process_of_its_own(models):
    figures = inference._start(models[0], 1, [1, 64])
    assert min(figures[name] for name in ("import_ms", "load_ms", "first_ms")) > 0
    # numpy and onnxruntime take some ten MB; torch, which is in this process, ten times as much.
    assert 1e7 < figures["bytes_before_load"] < figures["peak_bytes"]["1"] <= figures["peak_bytes"]["64"]
    assert figures["peak_bytes"]["64"] < inference_start.peak_bytes()


def test_a_start_that_fails_says_how(models, monkeypatch):
    def killed(*_, **__):
        return subprocess.CompletedProcess([], -9, "", "some\nlast words\n")

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(RunError, match=r"a\.onnx ended with status -9 \('last words'\).*--batch"):
        inference._start(models[0], 1, [1])


def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it():
    script = (
        "import json; from wash_fl.lab.bench.inference_start import peak_bytes; before = peak_bytes(); "
        "block = bytearray(50_000_000); print(json.dumps([before, peak_bytes()]))"
    )
    ballast = bytearray(100_000_000)
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = json.loads(process.stdout)
    assert before < len(ballast)
    assert 45_000_000 < after - before < 60_000_000


def test_the_tables_show_every_model_and_ratio(models, quick, clock):
    clock |= {"a.onnx": 0.002, "[b].onnx": 0.001}
    figures = inference.run(models, batches=[1, 8], repeats=3, warm_up=0)
    stream = StringIO()
    for table in tables(figures):
        Console(file=stream, width=200).print(table)
    text = stream.getvalue()
    assert text.count("0.500 (0.500 to 0.500)") == 2
    assert text.count("[b].onnx") == 3 and "MB at batch 8" in text and "3 turns after 0" in text
    one = inference.run(models[:1], batches=[1], repeats=1, warm_up=0)
    stream.truncate(0)
    for table in tables(one):
        Console(file=stream, width=200).print(table)
    assert "ratio" not in stream.getvalue()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"batches": []}, "batches = []"),
        ({"batches": [0]}, "batches = [0]"),
        ({"repeats": 0}, "repeats = 0"),
        ({"warm_up": -1}, "warm-up = -1"),
        ({"threads": 0}, "threads = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_impossible_numbers_are_refused_by_name(models, refused, options, part):
    with refused(ConfigError, part):
        inference.run(models, **options)


def test_no_model_a_missing_one_and_unfit_inputs_are_refused_before_anything_is_measured(
    models, quick, refused, tmp_path
):
    with refused(ConfigError, "no models"):
        inference.run([])
    with refused(ExportError, "nowhere.onnx"):
        inference.run([models[0], tmp_path / "nowhere.onnx"])
    (tmp_path / "a.csv").write_text("1,2\n")
    with refused(ExportError, "a.csv"):
        inference.run(models, inputs=[tmp_path / "a.csv"])
    assert quick == []


def test_the_command_prints_one_json_object_or_tables(wash, models):
    arguments = ("bench", "inference", *models, "--batch", "2,1", "--repeats", 3, "--warm-up", 1)
    result = wash(*arguments, "--json")
    assert (result.status, result.err, len(result.out.splitlines())) == (0, "", 1)
    content = json.loads(result.out)
    assert (content["bench"], content["repeats"], content["warm_up"], content["threads"]) == (
        "inference",
        3,
        1,
        1,
    )
    assert [each["model"] for each in content["models"]] == [str(path) for path in models]
    assert all(list(each["batches"]) == ["1", "2"] for each in content["models"])
    assert content["models"][0]["file_bytes"] == models[0].stat().st_size
    assert "onnxruntime" in content["machine"]["versions"]
    result = wash(*arguments, columns=200)
    assert (result.status, result.err) == (0, "")
    assert "p99 ms" in result.out and "ratio to the first" in result.out and "onnxruntime" in result.out


def test_a_batch_that_is_no_number_is_refused_in_one_line(wash, models):
    result = wash("bench", "inference", models[0], "--batch", "1,x")
    assert (result.status, result.out, len(result.err.splitlines())) == (1, "", 1)
    assert "batch = '1,x'" in result.err


# Test vectors


@pytest.fixture
def proven(models):
    inputs = np.random.default_rng(3).normal(size=(5, 1, 2, 3)).astype(np.float32)
    outputs = Predictor(models[0]).predict(inputs).logits
    put_proof(models[0], Proof.of(inputs, outputs, tolerance=1e-4, versions=VERSIONS))
    return models, inputs


def test_inputs_are_the_files_own_test_vectors(proven, quick):
    (model, other), inputs = proven
    figures = inference.run([model, other], batches=[7], repeats=1, warm_up=0)
    assert [each["check"] is None for each in figures["models"]] == [False, True]
    batches = {name: batch for name, batch in quick if len(batch) == 7}
    assert {each.tobytes() for each in batches["a.onnx"]} == {each.tobytes() for each in inputs}
    assert not np.isin(batches["[b].onnx"], inputs).any()


def test_a_model_that_answers_otherwise_here_is_told_and_measured(wash, proven, monkeypatch):
    (model, _), _ = proven
    logits = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda self, batch: 2 * logits(self, batch))
    monkeypatch.setattr(inference, "_start", lambda *_: START | {"peak_bytes": {"1": 5}})
    arguments = ("bench", "inference", model, "--batch", "1", "--repeats", 1, "--warm-up", 0)
    result = wash(*arguments, columns=200)
    assert result.status == 0 and "p99 ms" in result.out
    assert len(result.err.splitlines()) == 1 and "outputs differ" in result.err and str(model) in result.err
    content = json.loads(wash(*arguments, "--json").out)
    assert content["models"][0]["check"]["problem"] in result.err
