"""From a float32 ONNX file to graphs in int8: static QDQ quantization, by onnxruntime's own tools."""

import copy
import math
import platform
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QDQQuantizer, QuantType

from wash_fl.errors import ExportError
from wash_fl.export.calibration import drop_unbounded, prepare, ranges_of, refusing
from wash_fl.export.graph import forget_sources
from wash_fl.export.inference import Predictor
from wash_fl.export.inputs import Inputs, as_batch
from wash_fl.export.layers import named
from wash_fl.export.metadata import Quantization
from wash_fl.export.seal import sealed

# Softmax and normalization layers stay in float32: they cost little, and lose much in 8 bits.
_OPERATORS: Final = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Concat"),
    *("Relu", "LeakyRelu", "Clip", "Sigmoid"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Pad", "Slice", "Resize", "Split"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Gather"),
)
_LEAST_VARIANCE: Final = np.finfo(np.float32).tiny


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How a kind of processor wants its integers.

    Parameters
    ----------
    activations : str
        ``"uint8"``, with a zero point, or ``"int8"``.
    weight_bits : int
        Of the int8 that holds a weight; 7 leaves room for the sum of two products in 16 bits.
    """

    activations: str
    weight_bits: int


SCHEMES: Final = {
    "arm64": Scheme(activations="int8", weight_bits=8),
    "x86": Scheme(activations="uint8", weight_bits=7),
}
"""By target. Weights are int8 in both, symmetric, with a scale for each output channel.

x86: without VNNI, onnxruntime multiplies uint8 by int8 with VPMADDUBSW, which adds two products in 16 bits
and saturates. With weights of 7 bits it cannot, so every x86 processor gives the answers that were judged.
arm64: what onnxruntime advises for it (``quantize_static``).
"""

_MACHINES: Final = {"aarch64": "arm64", "arm64": "arm64", "x86_64": "x86", "amd64": "x86"}


def this_target() -> str | None:
    """Return the target that this machine is, or None."""
    return _MACHINES.get(platform.machine().lower())


def choose_target(name: str | None = None) -> str:
    """Return the target that is asked for, or the one that this machine is.

    Raises
    ------
    ExportError
        If there is no such target, or this machine is none.
    """
    if name is not None and name not in SCHEMES:
        raise ExportError(f"target = {name!r} is not allowed: it is one of {', '.join(SCHEMES)}.")
    target = name or this_target()
    if target is None:
        raise ExportError(
            f"this machine is {platform.machine()!r}, and int8 files are for {' or '.join(SCHEMES)}: give "
            "--target."
        )
    return target


class Quantizer:
    """A float32 file, ready to be quantized: BatchNorm folded, the range of every activation known.

    Parameters
    ----------
    model : Path
        A file written by :func:`wash_fl.export.export_onnx`.
    calibration : ndarray of ``card.input_dtype``, shape (n, *input_shape)
        Real inputs, prepared as the card says: the least and the largest value of each activation are theirs.
    target : str
        A key of :data:`SCHEMES`.

    Attributes
    ----------
    layers : tuple of str
        The operators that can be quantized, in the graph's order. One with weights has the name of their
        module, such as ``layer1.0.conv1``; another one that of the module before it, ``layer1.0.conv1/Add``.
    unbounded : tuple of str
        Those that read or write NaN or infinity, such as a mask. They always stay in float32.

    Raises
    ------
    ExportError
        If there is no such target, the inputs do not fit the model, or onnxruntime cannot quantize the file;
        from the methods as well.
    """

    def __init__(self, model: Path, calibration: Inputs, target: str) -> None:
        self.target = choose_target(target)
        self._model = model
        self._card = Predictor(model).card
        self._calibration = as_batch(calibration, self._card, "the calibration inputs")
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            with refusing(model):
                self._graph = named(prepare(model, prepared))
                onnx.save(self._graph, prepared)
                self._ranges = ranges_of(prepared, self._calibration, _OPERATORS)
                tensors = _float_tensors(self._graph.graph) | set(self._ranges.data)
                unbounded = drop_unbounded(self._ranges, self._graph.graph)
        self.layers = self._layers_of(tensors)
        self.unbounded = self._layers_of(unbounded)

    def write(self, path: Path, *, in_float: Collection[str] = ()) -> tuple[str, ...]:
        """Write the int8 file, and return the layers that are in float32 in it.

        Parameters
        ----------
        path : Path
            Where it goes; a file that is there is overwritten.
        in_float : collection of str
            Layers that stay in float32, beside those that are ``unbounded``.
        """
        float_layers = tuple(each for each in self.layers if each in {*in_float, *self.unbounded})
        proto = self._quantize(float_layers)
        if not in_float and all(node.op_type != "DequantizeLinear" for node in proto.graph.node):
            raise ExportError(
                f"{self._model} has no layer that can be in int8, such as a convolution or a matrix product "
                "of finite numbers: use the float32 file."
            )
        card = replace(self._card, quantization=Quantization(target=self.target, in_float=float_layers))
        for key, value in card.to_metadata().items():
            proto.metadata_props.add(key=key, value=value)
        path.write_bytes(sealed(proto))
        return float_layers

    def harm(self, examples: int) -> dict[str, float]:
        """Return what each layer does to the answers if it is the only one in int8.

        Parameters
        ----------
        examples : int
            How many of the calibration inputs are answered, for each layer.

        Returns
        -------
        dict of str to float
            For each layer that is not ``unbounded`` the mean squared change of the logits over their
            variance, infinite where an answer is not finite; the worst layer first.
        """
        inputs = self._calibration[:examples]
        reference = Predictor(self._model).predict(inputs).logits
        harm = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.onnx"
            for layer in self.layers:
                if layer not in self.unbounded:
                    self.write(path, in_float=set(self.layers) - {layer})
                    harm[layer] = _change(Predictor(path).predict(inputs).logits, reference)
        return dict(sorted(harm.items(), key=lambda item: -item[1]))

    def _layers_of(self, tensors: Collection[str]) -> tuple[str, ...]:
        return tuple(
            node.name
            for node in self._graph.graph.node
            if node.op_type in _OPERATORS and not set(tensors).isdisjoint([*node.input, *node.output])
        )

    def _quantize(self, in_float: Sequence[str]) -> onnx.ModelProto:
        scheme = SCHEMES[self.target]
        with refusing(self._model):
            quantizer = QDQQuantizer(
                copy.deepcopy(self._graph),
                per_channel=True,
                reduce_range=scheme.weight_bits < 8,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QInt8 if scheme.activations == "int8" else QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=[],  # all
                nodes_to_exclude=list(in_float),
                op_types_to_quantize=list(_OPERATORS),
                extra_options={},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        return _tidy(quantizer.model.model)


def _float_tensors(graph: onnx.GraphProto) -> set[str]:
    return {each.name for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT}


def _change(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    change = np.mean((logits.astype(float) - reference) ** 2) / max(np.var(reference), _LEAST_VARIANCE)
    # NaN compares as neither worse nor better than anything, and is the worst.
    return float(change) if math.isfinite(change) else math.inf


def _tidy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Leave out what nobody needs to run the graph: it counts in the file of a small model."""
    forget_sources(proto)
    del proto.graph.value_info[:]
    used = {node.domain for node in proto.graph.node}
    imports = [each for each in proto.opset_import if each.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    return proto
