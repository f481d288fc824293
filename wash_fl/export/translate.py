"""From a PyTorch model to an ONNX graph: torch's exporter, kept quiet, and its errors in one line."""

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any, Final

import onnx
import torch
from torch import nn

from wash_fl.errors import ExportError
from wash_fl.export.graph import drop_zero_biases, forget_sources
from wash_fl.export.text import cause_of

# What torch's exporter writes without converting, since 2.6; every onnxruntime from 1.14 reads it.
OPSET: Final = 18

_NO_OPERATOR: Final = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")


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
                dynamic_shapes=_dynamic_batch(model),
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
            f"torch cannot export the model to ONNX ({cause_of(cause)}): {_remedy(cause)}"
        ) from error
    _refuse_bfloat16(proto)
    _refuse_fixed_batch(proto)
    drop_zero_biases(proto.graph)
    forget_sources(proto)
    source_program = program.exported_program
    constants = source_program.constants.items() if source_program is not None else ()
    return proto, {name: value for name, value in constants if isinstance(value, torch.Tensor)}


def _dynamic_batch(model: nn.Module) -> tuple[Any, ...]:
    """Return that an input's first dimension is the batch's, in the form of the signature of ``forward``."""
    batch = {0: torch.export.Dim("batch")}
    first = next(iter(inspect.signature(model.forward).parameters.values()), None)
    gathers = first is not None and first.kind is inspect.Parameter.VAR_POSITIONAL
    return ((batch,),) if gathers else (batch,)


def _refuse_bfloat16(proto: onnx.ModelProto) -> None:
    """Refuse what onnxruntime has no kernels for on a CPU, before it says so in its own words."""
    kind = onnx.TensorProto.BFLOAT16
    values = (each.type.tensor_type.elem_type for each in proto.graph.value_info)
    weights = (each.data_type for each in proto.graph.initializer)
    casts = (each.i for node in proto.graph.node for each in node.attribute if each.name == "to")
    if kind in {*values, *weights, *casts}:
        raise ExportError(
            "the model computes in bfloat16, which devices cannot: leave torch.autocast to the training "
            "loop, or give it enabled=self.training in forward()."
        )


def _refuse_fixed_batch(proto: onnx.ModelProto) -> None:
    """Refuse a graph in which torch has taken the number of examples for a constant."""
    fixed = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if fixed:
        raise ExportError(
            f"torch exports the model for batches of {fixed} and no others: its forward() must not depend on "
            "the number of examples; write x.flatten(1) or x.view(len(x), -1), and let no if look at it."
        )


def _remedy(cause: BaseException) -> str:
    """Return what to do about an error of torch's, in the words of who wrote the model."""
    message = str(cause)
    if "data-dependent" in message:
        return "its forward() branches on values, which a file cannot: let torch.where choose."
    if operator := _NO_OPERATOR.search(message):
        return f"ONNX has nothing for {operator[1]}: compute it another way."
    return "its forward() must take one tensor and not branch on values or on the batch size."


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
