"""An int8 file beside the float32 file: written if it answers as well and gains something."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.inference import Predictor, refuse_targets
from wash_fl.export.inputs import Inputs, as_batch
from wash_fl.export.judgement import TOLERANCE, Judgement, judge
from wash_fl.export.latency import compare
from wash_fl.export.proof import by_turns, put_proof, quantized_tolerance, versions_here
from wash_fl.export.quantization import Quantizer, choose_target, this_target
from wash_fl.files import replacing

CALIBRATION: Final = 256
"""Inputs from which the range of every activation is taken, at most."""

HARM_EXAMPLES: Final = 64
"""Inputs by which a layer is judged: calibration inputs, for the test data are for the verdict alone."""


@dataclass(frozen=True, kw_only=True)
class Int8:
    """An int8 file beside the float32 file that it was made from.

    Parameters
    ----------
    model : Path
        The int8 file.
    target : str
        The kind of processor that it is for.
    in_float : tuple of str
        Layers that stay in float32.
    tries : int
        How many files were made and judged.
    float32_bytes, int8_bytes : int
        The sizes of the files.
    latency : dict
        The times of both on this machine; see :func:`wash_fl.export.latency.compare`.
    judgement : Judgement
        What int8 costs, in all and in each class, and what it may.
    """

    model: Path
    target: str
    in_float: tuple[str, ...]
    tries: int
    float32_bytes: int
    int8_bytes: int
    latency: dict[str, dict[str, float]]
    judgement: Judgement


def export_int8(
    model: Path,
    path: Path,
    *,
    target: str,
    calibration: Inputs,
    inputs: Inputs,
    targets: NDArray[Any],
    tolerance: float = TOLERANCE,
) -> Int8:
    """Write a file in int8, unless it answers worse than the float32 file, or is neither smaller nor faster.

    Of the calibration inputs 256 are used: the first of each class, as the float32 file answers, the second
    of each, and so on, for the ranges must be right for a rare class as well.

    If it answers worse (:func:`wash_fl.export.judgement.judge`), the layers that change the answers most when
    they alone are in int8 stay in float32, and it is tried again: with the worst one, the worst two, four,
    and so on up to half of those that change anything. The file appears at ``path`` only after it was
    accepted; what was there before stays otherwise.

    Parameters
    ----------
    model : Path
        A float32 file written by :func:`wash_fl.export.export_onnx`.
    path : Path
        Where the int8 file goes.
    target : str
        A key of :data:`wash_fl.export.quantization.SCHEMES`.
    calibration : ndarray of ``card.input_dtype``, shape (n, *input_shape)
        Some hundred inputs from the training data, or more where a class is rare.
    inputs : ndarray of ``card.input_dtype``, shape (m, *input_shape)
        Test data; as all inputs here prepared as the card says.
    targets : ndarray of integers, shape (m,)
        Their class indices.
    tolerance : float
        Percentage points of accuracy that may be lost; 0 to 100.

    Raises
    ------
    ExportError
        If the file is not accepted; the float32 file answers with NaN or infinity; the tolerance or the
        target is not allowed; or a file, the inputs or the targets are refused.
    """
    if not (math.isfinite(tolerance) and 0 <= tolerance <= 100):
        raise ExportError(f"int8-tolerance = {tolerance!r} must be percentage points from 0 to 100: try 0.5.")
    float32 = Predictor(model)
    quantizer = Quantizer(model, _spread(float32, calibration), target)
    batch = as_batch(inputs, float32.card, "the test inputs")
    classes = float32.card.classes
    refuse_targets(targets, len(batch), len(classes))
    reference = float32.predict(batch).logits
    if not np.isfinite(reference).all():
        raise ExportError(
            f"{model} answers test examples with NaN or infinity: export a model that is whole."
        )
    failed: list[tuple[Judgement, tuple[str, ...]]] = []
    with replacing(path) as partial:
        for in_float in _choices(quantizer):
            float_layers = quantizer.write(partial, in_float=in_float)
            int8 = Predictor(partial)
            logits = int8.predict(batch).logits
            judgement = judge(logits, reference, targets, classes, tolerance)
            if not judgement.failures:
                give_proof(partial, float32, tolerance=quantized_tolerance(logits, reference))
                result = Int8(
                    model=path,
                    target=target,
                    in_float=float_layers,
                    tries=len(failed) + 1,
                    float32_bytes=model.stat().st_size,
                    int8_bytes=partial.stat().st_size,
                    latency=compare(float32, Predictor(partial), batch),
                    judgement=judgement,
                )
                _refuse_without_gain(
                    result.float32_bytes, result.int8_bytes, result.latency, target, float_layers
                )
                return result
            failed.append((judgement, float_layers))
        best, float_layers = min(failed, key=lambda each: (len(each[0].failures), each[0].points_lost))
        raise ExportError(
            f"{path} is not written: {'; and '.join(best.failures)}. That was the best of "
            f"{len(failed)} tries, with {', '.join(float_layers) or 'no layer'} in float32: use the float32 "
            "file, or give a larger --int8-tolerance."
        )


def try_int8(model: Path, calibration: Inputs, target: str | None = None) -> None:
    """Return if a file can be quantized and the result answers: of a model before its training, in seconds.

    What int8 does to the answers is not judged, for an untrained model's are worth nothing. The size is, and
    if it is no gain the time. No file is left.

    Parameters
    ----------
    model : Path
        A float32 file written by :func:`wash_fl.export.export_onnx`.
    calibration : ndarray of ``card.input_dtype``, shape (n, *input_shape)
        Real inputs; a few suffice.
    target : str, optional
        A key of :data:`wash_fl.export.quantization.SCHEMES`; by default what this machine is.

    Raises
    ------
    ExportError
        If onnxruntime cannot quantize the file or run what comes out, nothing in it can be quantized, it
        would be neither smaller nor faster, or the inputs or the target are refused.
    """
    quantizer = Quantizer(model, calibration, choose_target(target))
    float32 = Predictor(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / model.name
        quantizer.write(path)
        Predictor(path).predict(calibration[:2])
        give_proof(path, float32, tolerance=1.0)
        before, after = model.stat().st_size, path.stat().st_size
        if after >= before:
            latency = compare(float32, Predictor(path), calibration)
            _refuse_without_gain(before, after, latency, quantizer.target)


def give_proof(path: Path, float32: Predictor, *, tolerance: float) -> None:
    """Put test vectors into an int8 file: the float32 file's inputs and its own answers.

    They are not the float32 file's answers, for it is another model.

    Parameters
    ----------
    path : Path
        The int8 file.
    float32 : Predictor
        Of the file that it was made from. If that has no test vectors, nothing is put in.
    tolerance : float
        How far the answers may be from these on another processor.
    """
    source = float32.proof
    if source is not None:
        outputs = Predictor(path).predict(source.inputs).logits
        versions = {**source.versions, **versions_here(onnx.load(path))}
        put_proof(path, replace(source, outputs=outputs, tolerance=tolerance, versions=versions))


def _spread(float32: Predictor, calibration: Inputs) -> Inputs:
    """Return some of the inputs, as evenly from all classes as there are any."""
    batch = as_batch(calibration, float32.card, "the calibration inputs")
    answers = float32.predict(batch).logits.argmax(axis=1)
    return batch[by_turns(answers)[:CALIBRATION]]


def _refuse_without_gain(
    before: int,
    after: int,
    latency: dict[str, dict[str, float]],
    target: str,
    in_float: Sequence[str] = (),
) -> None:
    """Raise :class:`ExportError` for a file that is neither smaller nor faster.

    It is faster if it is at batch 1 in three of four turns, on a machine of the kind that it is for.
    """
    here = target == this_target()
    if after >= before and not (here and latency["1"]["ratio_p75"] < 1):
        layers = f" with {', '.join(in_float)} in float32" if in_float else ""
        time = f"{latency['1']['ratio']:.2f} of the time" if here else f"no {target} machine to time it on"
        size = f"{after:,} bytes instead of {before:,}"
        raise ExportError(
            f"int8 gains nothing for this model{layers}: {size}, and {time}: use the float32 file."
        )


def _choices(quantizer: Quantizer) -> Iterator[tuple[str, ...]]:
    """Yield the layers that stay in float32, for one try after the other."""
    yield ()
    layers = quantizer.layers
    worst = [name for name, harm in quantizer.harm(HARM_EXAMPLES).items() if harm > 0]
    count = 1
    while count <= len(worst) // 2:
        selection = set(worst[:count])
        yield tuple(each for each in layers if each in selection)
        count *= 2
