"""Short names for big things: hashes of weights."""

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray


def weights_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 (hexadecimal) of named arrays: names, dtypes, shapes and every bit, by name."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        header = f"{name}\0{array.dtype.str}\0{list(array.shape)}\0".encode()
        digest.update(struct.pack("<I", len(header)) + header)
        digest.update(array.tobytes())
    return digest.hexdigest()


def array_sha256(array: NDArray[Any]) -> str:
    """Return the SHA-256 (hexadecimal) of an array: dtype, shape and every bit."""
    return weights_sha256({"": array})
