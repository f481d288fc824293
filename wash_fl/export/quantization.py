"""From a float32 ONNX file to graphs in int8: static QDQ quantization, by onnxruntime's own tools."""

import copy
import platform
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.quantization import QDQQuantizer, QuantType, create_calibrator, quant_pre_process

from wash_fl.errors import ExportError
from wash_fl.export.graph import forget_sources
from wash_fl.export.inference import Predictor
from wash_fl.export.inputs import Floats
from wash_fl.export.metadata import Quantization
from wash_fl.export.text import first_line

BATCH: Final = 32
"""Inputs per run while ranges are looked for: all activations of a run are in memory."""

# Softmax and normalization layers stay in float32: they cost little, and lose much in 8 bits.
_OPERATORS: Final = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Concat"),
    *("Relu", "LeakyRelu", "Clip", "Sigmoid"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Pad", "Slice", "Resize", "Split"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
)
# What onnxruntime's optimizer puts before the names of weights into which it has folded a BatchNorm.
_FOLDED: Final = ("ConvBnFusion_BN_B_", "ConvBnFusion_W_")


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


def choose_target(asked: str | None = None) -> str:
    """Return the target that is asked for, or the one that this machine is.

    Raises
    ------
    ExportError
        If there is no such target, or this machine is none.
    """
    if asked is not None:
        if asked not in SCHEMES:
            raise ExportError(f"target = {asked!r} is not allowed: it is one of {', '.join(SCHEMES)}.")
        return asked
    machine = platform.machine()
    if machine.lower() not in _MACHINES:
        raise ExportError(
            f"this machine is {machine!r}, and int8 files are for {' or '.join(SCHEMES)}: give --target."
        )
    return _MACHINES[machine.lower()]


class Quantizer:
    """A float32 file, ready to be quantized: BatchNorm folded, the range of every activation known.

    Parameters
    ----------
    model : Path
        A file written by :func:`wash_fl.export.export_onnx`.
    calibration : ndarray of float32, shape (n, *input_shape)
        Real inputs, prepared as the card says: the least and the largest value of each activation are theirs.
    target : str
        A key of :data:`SCHEMES`.

    Attributes
    ----------
    layers : tuple of str
        The operators that can be quantized, in the graph's order. One with weights has the name of their
        module, such as ``layer1.0.conv1``; another one that of the module before it, ``layer1.0.conv1/Add``.

    Raises
    ------
    ExportError
        If there is no such target, or onnxruntime cannot quantize the file; from the methods as well.
    """

    def __init__(self, model: Path, calibration: Floats, target: str) -> None:
        self.target = choose_target(target)
        self._model = model
        self._card = Predictor(model).card
        self._calibration = calibration
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            with _refusing(model):
                quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
                self._graph = _renamed(onnx.load(prepared))
                onnx.save(self._graph, prepared)
                self._ranges = _ranges(prepared, calibration)
        self.layers = tuple(node.name for node in self._graph.graph.node if node.op_type in _OPERATORS)

    def write(self, path: Path, *, in_float: Collection[str] = ()) -> None:
        """Write the int8 file.

        Parameters
        ----------
        path : Path
            Where it goes; a file that is there is overwritten.
        in_float : collection of str
            Layers that stay in float32.
        """
        kept = tuple(each for each in self.layers if each in in_float)
        proto = self._quantize(kept)
        card = replace(self._card, quantization=Quantization(target=self.target, in_float=kept))
        for key, value in card.to_metadata().items():
            proto.metadata_props.add(key=key, value=value)
        path.write_bytes(proto.SerializeToString(deterministic=True))

    def harm(self, examples: int) -> dict[str, float]:
        """Return what each layer does to the answers if it is the only one in int8.

        Parameters
        ----------
        examples : int
            How many of the calibration inputs are answered, for each layer.

        Returns
        -------
        dict of str to float
            For each layer the mean squared change of the logits over their variance; the worst layer first.
        """
        inputs = self._calibration[:examples]
        reference = Predictor(self._model).predict(inputs).logits
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.onnx"
            for layer in self.layers:
                self.write(path, in_float=set(self.layers) - {layer})
                changed = Predictor(path).predict(inputs).logits - reference
                found[layer] = float(np.mean(changed**2) / max(np.var(reference), np.finfo(np.float32).tiny))
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def _quantize(self, in_float: Sequence[str]) -> onnx.ModelProto:
        scheme = SCHEMES[self.target]
        with _refusing(self._model):
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


@contextmanager
def _refusing(model: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ExportError(
            f"onnxruntime cannot quantize {model} ({first_line(error)}): use the float32 file."
        ) from error


class _Batches:
    """What onnxruntime asks calibration inputs from, one batch after the other."""

    def __init__(self, inputs: Floats) -> None:
        self._batches: Iterator[Floats] = (
            inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)
        )

    def get_next(self) -> dict[str, Floats] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"input": batch}


def _ranges(prepared: Path, calibration: Floats) -> Any:
    calibrator = create_calibrator(
        str(prepared), list(_OPERATORS), augmented_model_path=str(prepared.with_suffix(".augmented.onnx"))
    )
    calibrator.collect_data(_Batches(calibration))
    return calibrator.compute_data()


def _renamed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give weights their own names again, and operators that of their module, or of the one before them."""
    graph = proto.graph
    names = {each.name: _unfolded(each.name) for each in graph.initializer}
    for initializer in graph.initializer:
        initializer.name = names[initializer.name]
    taken = {node.name for node in graph.node}
    module = "input"
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
        own = next((name for name in node.input if name.endswith(".weight")), "").removesuffix(".weight")
        module = own or module
        name = own or f"{module}/{node.op_type}"
        if name not in taken:
            node.name = name
            taken.add(name)
    return proto


def _unfolded(name: str) -> str:
    for prefix in _FOLDED:
        name = name.removeprefix(prefix)
    return name


def _tidy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Leave out what nobody needs to run the graph: it counts in the file of a small model."""
    forget_sources(proto)
    del proto.graph.value_info[:]
    used = {node.domain for node in proto.graph.node}
    imports = [each for each in proto.opset_import if each.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    return proto
