"""Data that comes with the package: arrays in a JSON file, for Flower's app bundles take no ``.npz``.

The file holds a compressed ``.npz`` in base64 with its SHA-256, and whatever values describe the arrays.
"""

import base64
import io
import json
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
