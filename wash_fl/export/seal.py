"""The seal of a model file: a sha256 over all its bytes, checked with Python alone before a file is opened.

It is the last entry of the file's metadata. Messages of protobuf that follow each other are one message, so
the entry is written behind all others, and its digits, the hash of everything before them, end the file.
"""

import copy
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wash_fl.errors import ExportError

if TYPE_CHECKING:
    import onnx

KEY: Final = "wash_fl.sha256"

_DIGITS: Final = 2 * hashlib.sha256().digest_size
_CHUNK: Final = 1 << 20


def _entry() -> bytes:
    """Return the entry as protobuf writes it, without the digits: ``{key: KEY, value: digits}``."""
    key = KEY.encode()
    pair = bytes([0x0A, len(key)]) + key + bytes([0x12, _DIGITS])
    return bytes([0x72, len(pair) + _DIGITS]) + pair  # 0x72: field 14 of a ModelProto, metadata_props


ENTRY: Final = _entry()


def sealed(proto: "onnx.ModelProto") -> bytes:
    """Return a model as the bytes of a file that carries its hash.

    Parameters
    ----------
    proto : onnx.ModelProto
        It is not changed. The seal of the file that it was read from, if it has one, is left out.

    Returns
    -------
    bytes
        An ONNX file.
    """
    others = [each for each in proto.metadata_props if each.key != KEY]
    if len(others) < len(proto.metadata_props):
        proto = copy.deepcopy(proto)
        del proto.metadata_props[:]
        proto.metadata_props.extend(others)
    content: bytes = proto.SerializeToString(deterministic=True) + ENTRY
    return content + hashlib.sha256(content).hexdigest().encode()


def check_seal(path: Path) -> None:
    """Return if a file is as it was written. It is read piece by piece, and never in memory as a whole.

    Parameters
    ----------
    path : pathlib.Path
        A file that ends as :func:`sealed` lets it end.

    Raises
    ------
    ExportError
        If the file cannot be read, ends otherwise, or has another hash.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _DIGITS - len(ENTRY)))
            entry, digits = file.read(len(ENTRY)), file.read()
            if entry != ENTRY or len(digits) != _DIGITS:
                raise ExportError(
                    f"{path} does not end with a hash of its bytes: it is cut short, damaged, no ONNX file "
                    "that wash-fl wrote, or an older version's. Copy it again, or export the model again."
                )
            file.seek(0)
            digest, remaining = hashlib.sha256(), size - _DIGITS
            while piece := file.read(min(_CHUNK, remaining)):
                digest.update(piece)
                remaining -= len(piece)
    except OSError as error:
        raise ExportError(f"cannot read {path} ({error.strerror}): give the path of an ONNX file.") from error
    if digest.hexdigest().encode() != digits:
        raise ExportError(
            f"{path} is damaged: its bytes are not those whose hash it carries (sha256 "
            f"{digest.hexdigest()[:12]}...): copy it again, or export the model again."
        )
