"""Short names for big things: the hash of a set of weights, and the identity of a run."""

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from wash_fl.core.packet import RUN_BYTES
from wash_fl.core.terms import Terms


def weights_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 (hexadecimal) of named arrays: names, dtypes, shapes and every bit, by name."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        header = f"{name}\0{array.dtype.str}\0{list(array.shape)}\0".encode()
        digest.update(struct.pack("<I", len(header)) + header)
        digest.update(array.tobytes())
    return digest.hexdigest()


def run_identity(terms: Terms) -> bytes:
    """Return 16 bytes that differ between runs: from the run's name and everything it agrees on."""
    return hashlib.sha256(b"wash-fl run 1" + terms.to_json().encode()).digest()[:RUN_BYTES]
