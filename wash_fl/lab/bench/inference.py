"""How fast exported models answer on this machine, and what memory they take: no torch."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ConfigError, RunError
from wash_fl.export.inference import Predictor
from wash_fl.export.inputs import Inputs, load_inputs
from wash_fl.export.latency import ratio, take_turns
from wash_fl.export.replay import replay
from wash_fl.export.text import short

PERCENTILES: Final = (50, 90, 99)


def run(
    models: Sequence[Path],
    *,
    batches: Sequence[int] = (1, 32),
    repeats: int = 200,
    warm_up: int = 20,
    threads: int = 1,
    seed: int = 0,
    inputs: Sequence[Path] = (),
) -> dict[str, Any]:
    """Measure latencies of models in turn, and the start of each in a process of its own.

    The models take turns, the one that is first changing from turn to turn: whatever slows the machine down
    meets all of them. A ratio is the median over the turns of a model's latency over that of the first model
    in the same turn. Measured is one run of onnxruntime on inputs in memory.

    Parameters
    ----------
    models : sequence of Path
        Files that wash_fl exported; the others are compared with the first.
    batches : sequence of int
        Batch sizes, each measured by itself.
    repeats, warm_up : int
        Turns that are measured, and turns before that which are not; per batch size.
    threads : int
        Threads that onnxruntime may use.
    seed : int
        Of the inputs of a model without test vectors: normal numbers, mean 0 and variance 1.
    inputs : sequence of Path
        Files to take the inputs from instead of the test vectors, repeated as often as a batch needs.

    Returns
    -------
    dict
        The settings; and in ``models``, for each one: its path, the bytes of its file, ``check`` (how it
        answers its test vectors, :class:`wash_fl.export.replay.Replay`; None without any), ``start`` (see
        :func:`wash_fl.lab.bench.inference_start.measure`), and for each batch size percentiles and mean of
        the latency (ms), examples per second, and ``ratio`` with its quartiles.

    Raises
    ------
    ConfigError
        If there is no model, or a number is not possible.
    ExportError
        If a model or an input file is refused.
    RunError
        If the process that measures a start ends before it is done.
    """
    sizes = sorted(set(batches))
    _refuse(models, sizes, repeats=repeats, warm_up=warm_up, threads=threads, seed=seed)
    predictors = [Predictor(path, threads) for path in models]
    model_inputs = [_inputs(predictor, sizes[-1], seed, inputs) for predictor in predictors]
    results: list[dict[str, Any]] = [
        {
            "model": str(path),
            "file_bytes": path.stat().st_size,
            "check": None if predictor.proof is None else asdict(replay(predictor)),
            "start": _start(path, threads, sizes),
            "batches": {},
        }
        for path, predictor in zip(models, predictors, strict=True)
    ]
    for size in sizes:
        times = take_turns(predictors, [each[:size] for each in model_inputs], repeats, warm_up)
        for figures, own in zip(results, times, strict=True):
            figures["batches"][str(size)] = _latency(own, size) | ratio(own, times[0])
    return {
        "threads": threads,
        "repeats": repeats,
        "warm_up": warm_up,
        "inputs": [str(each) for each in inputs] or f"test vectors, or normal numbers of seed {seed}",
        "models": results,
    }


def _refuse(models: Sequence[Path], batches: Sequence[int], **numbers: int) -> None:
    if not models:
        raise ConfigError("no models are given: give at least one ONNX file that wash-fl exported.")
    if not batches or batches[0] < 1:
        raise ConfigError(f"batches = {list(batches)} must be sizes of at least 1, such as 1 and 32.")
    for name, least in {"repeats": 1, "warm_up": 0, "threads": 1, "seed": 0}.items():
        if numbers[name] < least:
            raise ConfigError(f"{name.replace('_', '-')} = {numbers[name]} must be at least {least}.")


def _inputs(predictor: Predictor, size: int, seed: int, files: Sequence[Path]) -> Inputs:
    shape, kind = (size, *predictor.card.input_shape), predictor.card.input_dtype
    proof = predictor.proof
    # np.resize repeats whole examples, for an example's values lie beside each other.
    if files:
        return np.resize(load_inputs(files, predictor.card), shape)
    if proof is not None:
        return np.resize(proof.inputs, shape)
    random = np.random.Generator(np.random.Philox(seed))
    if kind == np.uint8:
        return random.integers(256, size=shape, dtype=np.uint8)
    # Of integers only 0 is sure to be a possible one: the first row of an embedding.
    return random.standard_normal(shape, dtype=np.float32) if kind == np.float32 else np.zeros(shape, kind)


def _latency(seconds: NDArray[np.float64], size: int) -> dict[str, float]:
    latency = dict(zip(PERCENTILES, 1000 * np.percentile(seconds, PERCENTILES), strict=True))
    return {
        **{f"p{percent}_ms": float(value) for percent, value in latency.items()},
        "mean_ms": float(1000 * seconds.mean()),
        "examples_per_second": float(size / seconds.mean()),
    }


def _start(model: Path, threads: int, batches: Sequence[int]) -> dict[str, Any]:
    command = [sys.executable, "-m", "wash_fl.lab.bench.inference_start", str(model), str(threads)]
    process = subprocess.run(
        [*command, json.dumps(list(batches))], capture_output=True, text=True, check=False
    )
    if process.returncode != 0:
        last = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(
            f"the process that loads {model} ended with status {process.returncode} ({short(last)}): is "
            "there memory enough? A smaller --batch needs less."
        )
    figures: dict[str, Any] = json.loads(process.stdout)
    return figures
