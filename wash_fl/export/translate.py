"""From a PyTorch model to an ONNX graph: torch's exporter, kept quiet, and its errors in one line."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Final

import onnx
import torch
from torch import nn

from wash_fl.errors import ExportError
from wash_fl.export.graph import drop_zero_biases, forget_sources
from wash_fl.export.text import first_line

# What torch's exporter writes without converting, since 2.6; every onnxruntime from 1.14 reads it.
OPSET: Final = 18


def translate(model: nn.Module, inputs: torch.Tensor) -> tuple[onnx.ModelProto, dict[str, torch.Tensor]]:
    """Return a model on the CPU as ONNX, and the constant tensors that its ``forward`` uses, by name.

    Raises
    ------
    ExportError
        If torch cannot export the model, with torch's reason.
    """
    # torch.export may take a size of 1 for a constant, so a single example is given twice.
    sample = inputs[:2] if len(inputs) > 1 else torch.cat([inputs, inputs])
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (sample,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                input_names=["input"],
                output_names=["logits"],
                opset_version=OPSET,
                optimize=False,  # it would write fused weights in place of the model's
                verbose=False,
            )
            assert program is not None
            proto = program.model_proto
    except Exception as error:  # torch.export raises whatever a model's forward() does
        cause = _root(error)
        raise ExportError(
            f"torch cannot export the model to ONNX ({type(cause).__name__}: {first_line(cause)}): "
            "its forward() must take one tensor and not branch on values or on the batch size."
        ) from error
    drop_zero_biases(proto.graph)
    forget_sources(proto)
    exported = program.exported_program
    constants = exported.constants.items() if exported is not None else ()
    return proto, {name: value for name, value in constants if isinstance(value, torch.Tensor)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and advice off the terminal; what goes wrong, it raises."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch", "onnxscript", "onnx_ir", *logging.root.manager.loggerDict)
        if name.split(".")[0] in ("torch", "onnxscript", "onnx_ir")
    ]
    levels = [(logger, logger.level) for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in levels:
                logger.setLevel(level)


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
