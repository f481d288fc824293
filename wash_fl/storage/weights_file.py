"""Named arrays as safetensors, the one way in which they are written and read here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from wash_fl.core.identity import weights_sha256
from wash_fl.files import write_bytes

Arrays = Mapping[str, NDArray[Any]]


def weights_bytes(arrays: Arrays) -> bytes:
    """Return the content of a file of named arrays, with their hash."""
    # Arrays in another order than C's would be written as they lie in memory, and read back as others.
    ordered = {name: np.asarray(each, order="C") for name, each in arrays.items()}
    return save(ordered, {"sha256": weights_sha256(ordered)})


def write_weights(path: Path, arrays: Arrays) -> None:
    """Write named arrays to a file, whole or not at all."""
    write_bytes(path, weights_bytes(arrays))


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Read named arrays back; one that has no hash is believed, as older versions wrote none of members.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SafetensorError
        If it is not what was written.
    """
    with safe_open(path, framework="np") as file:
        expected = (file.metadata() or {}).get("sha256")
        arrays: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if expected not in (None, weights_sha256(arrays)):
        raise SafetensorError("a bit of it has changed")
    return arrays
