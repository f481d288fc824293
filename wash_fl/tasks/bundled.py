"""Data that comes with the package: arrays in a JSON file that any editor shows.

The file holds a compressed ``.npz`` in base64 with its SHA-256, and whatever values describe the arrays. It
is installed with the package; code that a server has shipped for a run (``wash-fl serve --ship-code``) comes
without, and reads that of the package which is installed.
"""

import base64
import io
import json
import sys
import textwrap
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import DataError, reason_of
from wash_fl.files import write_text

_PACKAGE = Path(__file__).resolve().parents[1]


def read(path: Path, *names: str) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """Read some arrays of a file. Nothing is unpickled.

    Parameters
    ----------
    path : Path
        As :func:`write` leaves it.
    *names : str
        The arrays that are wanted.

    Returns
    -------
    list of ndarray
        Those arrays, in this order.
    dict
        The values beside them.

    Raises
    ------
    DataError
        If the file is missing or damaged; the message names it.
    """
    path = _installed(path)
    try:
        content = json.loads(path.read_bytes())
        archive = base64.b64decode("".join(content["npz"]), validate=True)
        if sha256(archive).hexdigest() != content["sha256"]:
            raise ValueError("its sha256 is another")
        with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
            return [arrays[name] for name in names], content
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): install wash-fl again.") from error
    except (ValueError, KeyError, TypeError, BadZipFile) as error:
        raise damaged(path, reason_of(error, 100)) from error


def damaged(path: Path, reason: str) -> DataError:
    """Return the error that says what is wrong with a file, and what to do."""
    return DataError(f"{path} is damaged ({reason}): install wash-fl again.")


def _installed(path: Path) -> Path:
    """Return where a file of the package's is: there, or else in another copy of the package on the path.

    Raises
    ------
    DataError
        If it is in none, and this copy was shipped without data.
    """
    if path.exists() or not path.is_relative_to(_PACKAGE):
        return path
    within = path.relative_to(_PACKAGE.parent)
    for entry in sys.path:
        if (copy := Path(entry or ".") / within).is_file():
            return copy
    if path.parent.exists():
        return path
    raise DataError(
        f"{path.name} is not on this machine, and --ship-code brings no data: install wash-fl here."
    )


def write(path: Path, about: str, arrays: Mapping[str, Any], **values: int) -> None:
    """Write arrays by name, what they are, and values that describe them."""
    archive = io.BytesIO()
    np.savez_compressed(archive, **dict(arrays))
    content = {
        "about": f"{about} npz: a NumPy archive without pickles, in base64; sha256: the archive's.",
        **values,
        "sha256": sha256(archive.getvalue()).hexdigest(),
        "npz": textwrap.wrap(base64.b64encode(archive.getvalue()).decode(), 104),
    }
    write_text(path, json.dumps(content, indent=0) + "\n")
