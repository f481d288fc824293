"""What a model is given: examples from files of several kinds, checked before they are used."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export import arrays, images, windows
from wash_fl.export.metadata import ModelCard
from wash_fl.export.pixels import SLACK
from wash_fl.export.ranges import doubts, refuse_impossible_pixels
from wash_fl.export.text import short

Floats = NDArray[np.float32]
Inputs = NDArray[Any]
"""Of a card's ``input_dtype``: float32, whole numbers, or bytes."""

SUFFIXES: Final = (*arrays.SUFFIXES, *windows.SUFFIXES, *images.SUFFIXES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """What one file holds.

    Parameters
    ----------
    file : pathlib.Path
    inputs : ndarray of ``card.input_dtype``, shape (n, *input_shape)
        As the model is given them.
    places : tuple of dict, length n
        Where in the file each is: ``{}`` if it is all of it, otherwise some of ``index`` (in a batch, from
        0), ``array`` (its name in an archive) and ``rows`` (first and last, from 1).
    left_over : int
        Rows at the end of a table that are in no window.
    warnings : tuple of str
        What is odd about the values, each one sentence; see :func:`wash_fl.export.ranges.doubts`.
    """

    file: Path
    inputs: Inputs
    places: tuple[dict[str, Any], ...]
    left_over: int = 0
    warnings: tuple[str, ...] = ()


def find_files(paths: Sequence[Path | str]) -> tuple[list[Path], list[Path]]:
    """Replace each folder by the files in it and in its folders, sorted by path.

    Parameters
    ----------
    paths : sequence of path-like
        Files, which stay as they are, and folders.

    Returns
    -------
    files : list of pathlib.Path
    passed_over : list of pathlib.Path
        Files in the folders that are of no kind that can be read, except hidden ones.

    Raises
    ------
    ExportError
        If a folder has nothing that can be read, or there is no path at all.
    """
    if not paths:
        raise ExportError(f"no input files are given: give at least one, of {', '.join(SUFFIXES)}.")
    files: list[Path] = []
    passed_over: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = [each for each in sorted(path.rglob("*")) if each.is_file() and not _hidden(each, path)]
        readable = [each for each in inside if each.suffix.lower() in SUFFIXES]
        if not readable:
            raise ExportError(f"the folder {path} has no file to read: put some of {', '.join(SUFFIXES)} in.")
        files += readable
        passed_over += [each for each in inside if each.suffix.lower() not in SUFFIXES]
    return files, passed_over


def read_examples(
    path: Path | str, card: ModelCard, *, resize: bool = False, stride: int | None = None
) -> Examples:
    """Read one file.

    Parameters
    ----------
    path : path-like
        ``.npy`` or ``.npz``: arrays of ``card.input_dtype`` and of shape ``input_shape`` or
        ``(n, *input_shape)``, prepared already as ``card.preprocessing`` says; nothing is unpickled. A
        picture or ``.csv``: raw values, prepared here by ``card.normalization``; see
        :mod:`wash_fl.export.images` and :mod:`wash_fl.export.windows`. A model with ``card.raw_inputs`` is
        given all of them raw, pictures and arrays of them as bytes. One whose inputs are whole numbers is
        given those of a ``.csv`` as they are, and no pictures.
    card : ModelCard
        A predictor's.
    resize : bool
        Scale pictures of another size.
    stride : int, optional
        Rows between the starts of two windows of a ``.csv``.

    Raises
    ------
    ExportError
        If the file is missing, damaged, of no such kind, or does not fit the model; the message names it.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in arrays.SUFFIXES:
        return _read_arrays(path, card)
    if kind in images.SUFFIXES:
        _refuse_pictures_for_numbers(path, card)
        raw = images.read_image(path, card.input_shape, resize=resize)
        return Examples(file=path, inputs=_prepared(path, raw[np.newaxis], card), places=({},))
    if kind in windows.SUFFIXES:
        raw, rows, left_over = windows.read_windows(
            path, card.input_shape, stride=stride, columns=card.columns, dtype=np.dtype(card.input_type)
        )
        places = tuple({"rows": list(each)} for each in rows)
        inputs = raw if raw.dtype.kind in "iu" else _prepared(path, raw, card)
        return Examples(
            file=path, inputs=inputs, places=places, left_over=left_over, warnings=doubts(inputs, card)
        )
    what = f"of the kind {kind}" if kind else "without a kind in its name"
    raise ExportError(f"{path} is a file {what}: give one of {', '.join(SUFFIXES)}, or a folder of them.")


def load_inputs(
    paths: Sequence[Path | str], card: ModelCard, *, resize: bool = False, stride: int | None = None
) -> Inputs:
    """Read files and folders into one batch in the given order; otherwise as :func:`read_examples`.

    Returns
    -------
    ndarray of ``card.input_dtype``, shape (n, *card.input_shape)

    Warns
    -----
    UserWarning
        What is odd about a file's values.
    """
    files, _ = find_files(paths)
    read = [read_examples(path, card, resize=resize, stride=stride) for path in files]
    for examples in read:
        for doubt in examples.warnings:
            warnings.warn(f"{examples.file}: {doubt}", stacklevel=2)
    return np.concatenate([examples.inputs for examples in read])


def as_batch(inputs: NDArray[Any], card: ModelCard, what: str, *, slack: float = 1.0) -> Inputs:
    """Return one example or many as a batch, after checking shape, dtype, finiteness and what a picture is.

    Whole numbers of another integer type that can hold them all become ``card.input_dtype``; nothing else is
    converted.

    Parameters
    ----------
    inputs : ndarray
    card : ModelCard
    what : str
        The beginning of the message of the :class:`ExportError` that is raised otherwise.
    slack : float
        How far outside of 0..1 a picture's pixels may be, with the card's normalization undone. A model is
        asked about its own task's pictures, too, some of which scaling has carried a little outside.
    """
    input_shape, dtype = card.input_shape, np.dtype(card.input_dtype)
    allowed = f"{dtype} of shape (n, {', '.join(map(str, input_shape))}), or one example without the n"
    raw = "give them raw, for the model prepares them itself"
    remedy = raw if card.raw_inputs else "prepare them as the model's card says"
    batch = inputs[np.newaxis] if inputs.shape == input_shape else inputs
    if batch.shape[1:] != input_shape or batch.ndim == 0 or len(batch) == 0:
        reshape = _way_to_shape(inputs.shape, input_shape)
        raise ExportError(f"{what} have shape {inputs.shape}, not {allowed}: {reshape or remedy}.")
    if batch.dtype.kind in "iu" and dtype.kind in "iu":
        batch = _as_integers(batch, dtype, what)
    if batch.dtype != dtype:
        raise ExportError(
            f"{what} are {inputs.dtype}, not {allowed}: {remedy}, then use .astype(numpy.{dtype})."
        )
    finite = np.isfinite(batch).reshape(len(batch), -1).all(axis=1)
    if not finite.all():
        raise ExportError(
            f"{what} hold NaN or infinity, first in example {int(finite.argmin())}: leave such examples out."
        )
    refuse_impossible_pixels(batch, card, what, slack)
    return batch


def _way_to_shape(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> str:
    """Return what makes of an array of one shape inputs of the other, where that can be told."""
    *rest, channels = input_shape[1:] + input_shape[:1]
    if len(input_shape) > 1 and shape[-len(input_shape) :] == (*rest, channels):
        return f"its channels are last, move them with numpy.moveaxis(inputs, -1, -{len(input_shape)})"
    without = input_shape[1:]
    if input_shape[0] == 1 and without and shape[-len(without) :] == without:
        return f"its one channel has no dimension, add it with .reshape{(-1, *input_shape)}"
    return ""


def _as_integers(batch: NDArray[Any], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    least, most, limits = int(batch.min()), int(batch.max()), np.iinfo(dtype)
    if least < limits.min or most > limits.max:
        raise ExportError(
            f"{what} run from {least} to {most}, and {dtype} from {limits.min} to {limits.max}: give whole "
            f"numbers that {dtype} can hold."
        )
    return batch.astype(dtype, copy=False)


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _refuse_pictures_for_numbers(path: Path, card: ModelCard) -> None:
    if card.input_type != "float32":
        raise ExportError(
            f"{path} is a picture, and the model is given whole numbers ({card.input_type}): give .npy "
            f"arrays of them{', or a .csv' if len(card.input_shape) <= 2 else ''}."
        )


def _prepared(path: Path, raw: Floats, card: ModelCard) -> Inputs:
    if card.normalization is None:
        raise ExportError(
            f"{path} holds raw values, and the model's card does not say in numbers how they are prepared "
            f"(it says {short(card.preprocessing)}): give .npy files that are prepared, or set NORMALIZATION "
            "in the task and export the model again."
        )
    if card.raw_inputs:
        return images.as_bytes(raw) if card.input_dtype == np.uint8 else raw
    return card.normalization.apply(raw)


def _read_arrays(path: Path, card: ModelCard) -> Examples:
    inputs: list[Inputs] = []
    places: list[dict[str, Any]] = []
    for name, array in arrays.read_arrays(path):
        batch = as_batch(array, card, str(path) if name is None else f"{path}: {name}", slack=SLACK)
        inputs.append(batch)
        place = {} if name is None else {"array": name}
        alone = array.shape == card.input_shape
        places += [place if alone else place | {"index": index} for index in range(len(batch))]
    if not inputs:
        raise ExportError(f"{path} holds no array: write it with numpy.savez.")
    batch = np.concatenate(inputs)
    return Examples(file=path, inputs=batch, places=tuple(places), warnings=doubts(batch, card))
