"""The ranges of a graph's activations on real inputs, by onnxruntime's own tools, kept quiet."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import create_calibrator

from wash_fl.errors import ExportError
from wash_fl.export.inputs import Inputs
from wash_fl.export.text import first_line

BATCH: Final = 32
"""Inputs per run while ranges are looked for: all activations of a run are in memory."""

# onnxruntime's severities; it starts with the second.
_ERRORS, _WARNINGS = 3, 2


def prepare(model: Path, path: Path) -> onnx.ModelProto:
    """Return a model as onnxruntime's optimizer leaves it, BatchNorm folded, with the shape of every tensor.

    Its file is written to ``path``. Not by onnxruntime's ``quant_pre_process``, which goes on without the
    optimizer where that fails, and does so always in versions before 1.31 if shapes are inferred by ONNX.
    """
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return onnx.shape_inference.infer_shapes(onnx.load(path))


def ranges_of(path: Path, inputs: Inputs, operators: Sequence[str]) -> Any:
    """Return the least and the largest value of these operators' activations, as a ``TensorsData``."""
    augmented = path.with_suffix(".augmented.onnx")
    calibrator = create_calibrator(str(path), list(operators), augmented_model_path=str(augmented))
    name = calibrator.infer_session.get_inputs()[0].name
    batches = (inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH))
    calibrator.collect_data(_Feed({name: batch} for batch in batches))
    return calibrator.compute_data()


def drop_unbounded(ranges: Any, graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that hold NaN or infinity, after taking their ranges away: they can have no scale.

    A mask for attention is one, such as minus infinity where a token may not look, or what it is added to.
    """
    activations = {name for name, each in ranges.data.items() if not np.isfinite(each.range_value).all()}
    for name in activations:
        del ranges.data[name]
    weights = (each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT)
    return activations | {
        each.name for each in weights if not np.isfinite(onnx.numpy_helper.to_array(each)).all()
    }


@contextlib.contextmanager
def refusing(model: Path) -> Iterator[None]:
    """Raise :class:`ExportError` for what onnxruntime's tools raise, and keep what they log to themselves."""
    with _quiet():
        try:
            yield
        except Exception as error:  # onnxruntime's own errors share no base class
            raise ExportError(
                f"onnxruntime cannot quantize {model} ({first_line(error)}): use the float32 file."
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    def is_ours(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    tools = logging.getLogger("onnxruntime")
    level, silent = tools.level, logging.NullHandler()
    # They also write to the root logger itself, and without a handler that would set one up for good.
    logging.root.addHandler(silent)
    logging.root.addFilter(is_ours)
    tools.setLevel(logging.CRITICAL + 1)
    onnxruntime.set_default_logger_severity(_ERRORS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
        tools.setLevel(level)
        logging.root.removeFilter(is_ours)
        logging.root.removeHandler(silent)


class _Feed:
    """What onnxruntime asks calibration inputs from, one batch after the other."""

    def __init__(self, batches: Iterator[dict[str, Inputs]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Inputs] | None:
        return next(self._batches, None)
