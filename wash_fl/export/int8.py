"""An int8 file beside the float32 file: written if it answers as well, refused otherwise."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.inference import Predictor
from wash_fl.export.inputs import Floats
from wash_fl.export.quantization import Quantizer
from wash_fl.files import replacing

TOLERANCE: Final = 0.5
"""Percentage points of accuracy that int8 may cost."""

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
    examples : int
        How many were answered.
    float32_accuracy, int8_accuracy : float
        The fraction that each file answered rightly.
    agreement : float
        The fraction whose top-1 answers are equal.
    """

    model: Path
    target: str
    in_float: tuple[str, ...]
    tries: int
    float32_bytes: int
    int8_bytes: int
    examples: int
    float32_accuracy: float
    int8_accuracy: float
    agreement: float

    @property
    def lost(self) -> float:
        """Percentage points of accuracy that int8 costs; below 0 if it gains."""
        return 100 * (self.float32_accuracy - self.int8_accuracy)


def export_int8(
    model: Path,
    path: Path,
    *,
    target: str,
    calibration: Floats,
    inputs: Floats,
    targets: NDArray[Any],
    tolerance: float = TOLERANCE,
) -> Int8:
    """Write a file in int8, unless it answers worse than the float32 file by more than the tolerance.

    If it does, the layers that change the answers most when they alone are in int8 stay in float32, and it is
    tried again: with the worst one, the worst two, four, and so on up to half of those that change anything.
    The file appears at ``path`` only after it was accepted; what was there before stays otherwise.

    Parameters
    ----------
    model : Path
        A float32 file written by :func:`wash_fl.export.export_onnx`.
    path : Path
        Where the int8 file goes.
    target : str
        A key of :data:`wash_fl.export.quantization.SCHEMES`.
    calibration : ndarray of float32, shape (n, *input_shape)
        Some hundred inputs from the training data.
    inputs : ndarray of float32, shape (m, *input_shape)
        Test data; as all inputs here prepared as the card says.
    targets : ndarray of integers, shape (m,)
        Their class indices.
    tolerance : float
        Percentage points of accuracy that may be lost; 0 to 100.

    Raises
    ------
    ExportError
        If the accuracy cannot be kept, the tolerance or the target is not allowed, or a file or the inputs
        are refused.
    """
    if not (math.isfinite(tolerance) and 0 <= tolerance <= 100):
        raise ExportError(f"int8-tolerance = {tolerance!r} must be percentage points from 0 to 100: try 0.5.")
    quantizer = Quantizer(model, calibration, target)
    wanted = Predictor(model).predict(inputs).logits.argmax(axis=1)
    best: Int8 | None = None
    with replacing(path) as partial:
        for tries, in_float in enumerate(_choices(quantizer), start=1):
            quantizer.write(partial, in_float=in_float)
            given = Predictor(partial).predict(inputs).logits.argmax(axis=1)
            found = Int8(
                model=path,
                target=target,
                in_float=in_float,
                tries=tries,
                float32_bytes=model.stat().st_size,
                int8_bytes=partial.stat().st_size,
                examples=len(inputs),
                float32_accuracy=float(np.mean(wanted == targets)),
                int8_accuracy=float(np.mean(given == targets)),
                agreement=float(np.mean(given == wanted)),
            )
            if found.lost <= tolerance:
                return found
            best = min((each for each in (best, found) if each), key=lambda each: each.lost)
        assert best is not None
        raise ExportError(
            f"{path} is not written: int8 costs at least {best.lost:.2f} points of accuracy "
            f"({best.float32_accuracy:.2%} to {best.int8_accuracy:.2%} on {best.examples} examples), above "
            f"the tolerance of {tolerance:g}. That was the best of {tries} tries, with "
            f"{', '.join(best.in_float) or 'no layer'} in float32: use the float32 file, or give a larger "
            "--int8-tolerance."
        )


def _choices(quantizer: Quantizer) -> Iterator[tuple[str, ...]]:
    """Yield the layers that stay in float32, for one try after the other."""
    yield ()
    layers = quantizer.layers
    worst = [name for name, harm in quantizer.harm(HARM_EXAMPLES).items() if harm > 0]
    count = 1
    while count <= len(worst) // 2:
        chosen = set(worst[:count])
        yield tuple(each for each in layers if each in chosen)
        count *= 2
