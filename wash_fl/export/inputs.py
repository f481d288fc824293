"""What a model is given: examples from files of several kinds, checked before they are used."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export import images, windows
from wash_fl.export.metadata import ModelCard
from wash_fl.export.text import first_line, short

Floats = NDArray[np.float32]
Inputs = NDArray[Any]
"""Of a card's ``input_dtype``: float32, or bytes."""
_Content = TypeVar("_Content")

ARRAYS: Final = (".npy", ".npz")
SUFFIXES: Final = (*ARRAYS, *windows.SUFFIXES, *images.SUFFIXES)


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
    """

    file: Path
    inputs: Inputs
    places: tuple[dict[str, Any], ...]
    left_over: int = 0


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
        ``.npy`` or ``.npz``: float32 arrays of shape ``input_shape`` or ``(n, *input_shape)``, prepared
        already as ``card.preprocessing`` says; nothing is unpickled. A picture or ``.csv``: raw values,
        prepared here by ``card.normalization``; see :mod:`wash_fl.export.images` and
        :mod:`wash_fl.export.windows`. A model with ``card.raw_inputs`` is given all of them raw, pictures
        and arrays of them as bytes.
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
    if kind in ARRAYS:
        return _read_arrays(path, card)
    if kind in images.SUFFIXES:
        raw = images.read_image(path, card.input_shape, resize=resize)
        return Examples(file=path, inputs=_prepared(path, raw[np.newaxis], card), places=({},))
    if kind in windows.SUFFIXES:
        raw, rows, left_over = windows.read_windows(path, card.input_shape, stride=stride)
        places = tuple({"rows": list(each)} for each in rows)
        return Examples(file=path, inputs=_prepared(path, raw, card), places=places, left_over=left_over)
    what = f"of the kind {kind}" if kind else "without a kind in its name"
    raise ExportError(f"{path} is a file {what}: give one of {', '.join(SUFFIXES)}, or a folder of them.")


def load_inputs(
    paths: Sequence[Path | str], card: ModelCard, *, resize: bool = False, stride: int | None = None
) -> Inputs:
    """Read files and folders into one batch in the given order; otherwise as :func:`read_examples`.

    Returns
    -------
    ndarray of ``card.input_dtype``, shape (n, *card.input_shape)
    """
    files, _ = find_files(paths)
    return np.concatenate([read_examples(path, card, resize=resize, stride=stride).inputs for path in files])


def as_batch(inputs: NDArray[Any], card: ModelCard, what: str) -> Inputs:
    """Return one example or many as a batch, after checking shape, dtype and finiteness.

    ``what`` begins the message of the :class:`ExportError` that is raised otherwise.
    """
    input_shape, dtype = card.input_shape, np.dtype(card.input_dtype)
    allowed = f"{dtype} of shape (n, {', '.join(map(str, input_shape))}), or one example without the n"
    raw = "give them raw, for the model prepares them itself"
    remedy = raw if card.raw_inputs else "prepare them as the model's card says"
    batch = inputs[np.newaxis] if inputs.shape == input_shape else inputs
    if batch.shape[1:] != input_shape or batch.ndim == 0 or len(batch) == 0:
        raise ExportError(f"{what} have shape {inputs.shape}, not {allowed}: {remedy}.")
    if batch.dtype != dtype:
        raise ExportError(
            f"{what} are {inputs.dtype}, not {allowed}: {remedy}, then use .astype(numpy.{dtype})."
        )
    finite = np.isfinite(batch).reshape(len(batch), -1).all(axis=1)
    if not finite.all():
        raise ExportError(
            f"{what} hold NaN or infinity, first in example {int(finite.argmin())}: leave such examples out."
        )
    return batch


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


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
    for name, array in (_read_npz if path.suffix.lower() == ".npz" else _read_npy)(path):
        batch = as_batch(array, card, str(path) if name is None else f"{path}: {name}")
        inputs.append(batch)
        named = {} if name is None else {"array": name}
        alone = array.shape == card.input_shape
        places += [named if alone else named | {"index": index} for index in range(len(batch))]
    if not inputs:
        raise ExportError(f"{path} holds no array: write it with numpy.savez.")
    return Examples(file=path, inputs=np.concatenate(inputs), places=tuple(places))


def _read_npy(path: Path) -> Iterator[tuple[None, NDArray[Any]]]:
    def read() -> NDArray[Any]:
        with path.open("rb") as file:
            # Not np.load, which also opens archives: one file is one array here.
            return np.lib.format.read_array(file, allow_pickle=False)

    yield None, _refusing(path, ".npy", "numpy.save", read)


def _read_npz(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    def read() -> list[tuple[str, NDArray[Any]]]:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array, not an archive")
            content = [(name, archive[name]) for name in archive.files]
            others = [name for name, each in content if not isinstance(each, np.ndarray)]
            if others:
                raise ValueError(f"{short(others[0])} in it is no array")
            return content

    yield from _refusing(path, ".npz", "numpy.savez", read)


def _refusing(path: Path, kind: str, writer: str, read: Callable[[], _Content]) -> _Content:
    try:
        return read()
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ExportError(
            f"{path} is not a {kind} file of numbers ({first_line(error)}): write it with {writer} from "
            "float32 arrays."
        ) from error
    except OSError as error:
        raise ExportError(
            f"cannot read {path} ({error.strerror}): give the path of a {kind} file."
        ) from error
