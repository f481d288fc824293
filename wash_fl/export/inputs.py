"""What a model is given: arrays checked before they are used, from memory or from ``.npy`` files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.text import first_line

Floats = NDArray[np.float32]


def load_inputs(paths: Sequence[Path | str], input_shape: tuple[int, ...]) -> Floats:
    """Read ``.npy`` files, each of one example or a batch, into one batch in the given order.

    Parameters
    ----------
    paths : sequence of path-like
        Files of float32 arrays of shape ``input_shape`` or ``(n, *input_shape)``. Nothing is unpickled.
    input_shape : tuple of int
        The shape of one input: a predictor's ``card.input_shape``.

    Returns
    -------
    ndarray of float32, shape (n, *input_shape)

    Raises
    ------
    ExportError
        If there is no path, or a file is missing, is not a ``.npy`` file, or holds anything else.
    """
    if not paths:
        raise ExportError("no input files are given: give at least one .npy file.")
    return np.concatenate([as_batch(_read_npy(Path(path)), input_shape, str(path)) for path in paths])


def as_batch(inputs: NDArray[Any], input_shape: tuple[int, ...], what: str) -> Floats:
    """Return one example or many as a batch, after checking shape, dtype and finiteness.

    ``what`` begins the message of the :class:`ExportError` that is raised otherwise.
    """
    allowed = f"float32 of shape (n, {', '.join(map(str, input_shape))}), or one example without the n"
    batch = inputs[np.newaxis] if inputs.shape == input_shape else inputs
    if batch.shape[1:] != input_shape or batch.ndim == 0 or len(batch) == 0:
        raise ExportError(
            f"{what} have shape {inputs.shape}, not {allowed}: prepare them as the model's card says."
        )
    if batch.dtype != np.float32:
        raise ExportError(
            f"{what} are {inputs.dtype}, not {allowed}: prepare them as the model's card says, then "
            "use .astype(numpy.float32)."
        )
    finite = np.isfinite(batch).reshape(len(batch), -1).all(axis=1)
    if not finite.all():
        raise ExportError(
            f"{what} hold NaN or infinity, first in example {int(finite.argmin())}: leave such examples out."
        )
    return batch


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            # Not np.load, which also opens archives: one file is one array here.
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise ExportError(f"cannot read {path} ({error.strerror}): give the path of a .npy file.") from error
    except (ValueError, EOFError) as error:
        raise ExportError(
            f"{path} is not a .npy file of numbers ({first_line(error)}): write it with numpy.save from a "
            "float32 array."
        ) from error
