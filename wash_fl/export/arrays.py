"""Arrays from ``.npy`` and ``.npz`` files, of which nothing is unpickled."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.text import first_line, short

SUFFIXES: Final = (".npy", ".npz")

_Content = TypeVar("_Content")


def read_arrays(path: Path) -> Iterator[tuple[str | None, NDArray[Any]]]:
    """Yield the arrays of a file with their names, None in a ``.npy``, which holds one array.

    Raises
    ------
    ExportError
        If the file is missing or damaged, or something in it is no array of numbers.
    """
    if path.suffix.lower() == ".npz":
        yield from _refusing(path, ".npz", "numpy.savez", _read_npz)
    else:
        yield None, _refusing(path, ".npy", "numpy.save", _read_npy)


def _read_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        # Not np.load, which also opens archives: one file is one array here.
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_npz(path: Path) -> list[tuple[str, NDArray[Any]]]:
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it is a single array, not an archive")
        content = [(name, archive[name]) for name in archive.files]
        others = [name for name, each in content if not isinstance(each, np.ndarray)]
        if others:
            raise ValueError(f"{short(others[0])} in it is no array")
        return content


def _refusing(path: Path, kind: str, writer: str, read: Callable[[Path], _Content]) -> _Content:
    try:
        return read(path)
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ExportError(
            f"{path} is not a {kind} file of numbers ({first_line(error)}): write it with {writer} from "
            "arrays of numbers."
        ) from error
    except OSError as error:
        raise ExportError(
            f"cannot read {path} ({error.strerror}): give the path of a {kind} file."
        ) from error
