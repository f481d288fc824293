"""The proof that a model file carries: a few real inputs, the right answers, and what it was checked with."""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.inputs import Floats, Inputs
from wash_fl.export.metadata import PREFIX, ModelCard
from wash_fl.export.seal import sealed
from wash_fl.export.text import short

if TYPE_CHECKING:
    import onnx

KEY: Final = PREFIX + "proof"

MOST_EXAMPLES: Final = 8
MOST_BYTES: Final = 256_000
"""What the inputs may take in the file, compressed; one example is there in any case."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Proof:
    """Test vectors of a model file.

    Parameters
    ----------
    inputs : ndarray of the card's ``input_dtype``, shape (n, *input_shape)
        Real inputs, as the file is given them.
    outputs : ndarray of float32, shape (n, classes)
        The right answers: PyTorch's where the file is in float32.
    tolerance : float
        The largest difference between two outputs that is accepted.
    versions : mapping of str to str
        Of what the file was checked with, by package, and its opset.
    """

    inputs: Inputs
    outputs: Floats
    tolerance: float
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        outputs: NDArray[Any],
        *,
        tolerance: float,
        versions: Mapping[str, str],
        most: int = MOST_EXAMPLES,
    ) -> "Proof":
        """Return a proof of some of the examples: of different answers where there are, and of bounded size.

        Parameters
        ----------
        inputs, outputs, tolerance, versions
            As above, of any number of examples; the choice depends on nothing else.
        most : int
            How many at most, 1 to 8.
        """
        indices: list[int] = []
        size = 0
        for index in by_turns(outputs.argmax(axis=1))[:most]:
            size += len(_packed(inputs[index]))
            if indices and size > MOST_BYTES:
                break
            indices.append(index)
        return cls(
            inputs=np.ascontiguousarray(inputs[indices]),
            outputs=np.ascontiguousarray(outputs[indices], dtype=np.float32),
            tolerance=tolerance,
            versions=versions,
        )

    def put_into(self, proto: "onnx.ModelProto") -> None:
        """Put the proof into a model's metadata, in the place of one that is there."""
        others = [each for each in proto.metadata_props if each.key != KEY]
        del proto.metadata_props[:]
        proto.metadata_props.extend(others)
        content = {
            "examples": len(self.inputs),
            "inputs": _packed(self.inputs),
            "outputs": _packed(self.outputs),
            "tolerance": float(self.tolerance),
            "versions": dict(self.versions),
        }
        proto.metadata_props.add(key=KEY, value=json.dumps(content))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], card: ModelCard) -> "Proof | None":
        """Return what :meth:`put_into` has put into a file; None if the file has no proof.

        Raises
        ------
        ExportError
            If it is there and not of that form, or does not fit the card.
        """
        if KEY not in metadata:
            return None
        try:
            content = json.loads(metadata[KEY])
            examples, tolerance, versions = (content[key] for key in ("examples", "tolerance", "versions"))
            if type(examples) is not int or not 1 <= examples <= MOST_EXAMPLES:
                raise ValueError(f"{short(examples)} examples, and 1 to {MOST_EXAMPLES} are allowed")
            if type(tolerance) is not float or not (isfinite(tolerance) and tolerance > 0):
                raise ValueError(f"a tolerance of {short(tolerance)}")
            valid = isinstance(versions, dict) and all(isinstance(each, str) for each in versions.values())
            if not valid:
                raise ValueError(f"versions {short(versions)}")
            return cls(
                inputs=_unpacked(content["inputs"], card.input_dtype, (examples, *card.input_shape)),
                outputs=_unpacked(content["outputs"], np.dtype(np.float32), (examples, len(card.classes))),
                tolerance=tolerance,
                versions=versions,
            )
        except (ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
            reason = f"{type(error).__name__}: {short(str(error))}"
            raise ExportError(
                f"the metadata's {KEY} is not as wash_fl writes it ({reason}): export the model again."
            ) from error


def prove(
    proto: "onnx.ModelProto",
    inputs: Inputs,
    outputs: NDArray[Any],
    *,
    tolerance: float,
    versions: Mapping[str, str],
    most: int = MOST_EXAMPLES,
) -> None:
    """Put a proof of some of the examples into a model's metadata, in the place of one that is there.

    Parameters
    ----------
    proto : onnx.ModelProto
    inputs, outputs, tolerance
        As :meth:`Proof.of` takes them.
    versions : mapping of str to str
        Beside :func:`versions_here`: torch's, or what the file was checked with that this one is made of.
    most : int
        How many examples at most; with 0 nothing is put in.

    Raises
    ------
    ExportError
        If it is not 0 to 8.
    """
    if not 0 <= most <= MOST_EXAMPLES:
        raise ExportError(f"test_vectors = {most!r} must be 0 to {MOST_EXAMPLES}: 0 carries none.")
    if most == 0:
        return
    all_versions = {**versions, **versions_here(proto)}
    Proof.of(inputs, outputs, tolerance=tolerance, versions=all_versions, most=most).put_into(proto)


def put_proof(path: Path, proof: Proof) -> None:
    """Put a proof into a model file that has been written already, and seal it again."""
    import onnx

    proto = onnx.load(path)
    proof.put_into(proto)
    path.write_bytes(sealed(proto))


def versions_here(proto: "onnx.ModelProto") -> dict[str, str]:
    """Return the versions of the packages that a model was checked with here, and its opset."""
    import onnx
    import onnxruntime

    return {
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": ", ".join(str(each.version) for each in proto.opset_import if not each.domain),
    }


def quantized_tolerance(quantized: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return how far the answers of a file in int8 may be on another processor from those it gave here.

    Kernels of another processor round otherwise, so that int8 is not the same bit for bit everywhere. What is
    farther from this file's answers than these are from float32's is not rounding but another model.

    Parameters
    ----------
    quantized, reference : ndarray, shape (n, classes)
        The answers of both files to the same inputs, on the machine that made them.
    """
    difference = np.abs(quantized.astype(np.float64) - reference.astype(np.float64))
    return max(float(difference.max()), 1e-4)


def by_turns(answers: NDArray[np.int64]) -> list[int]:
    """Return all indices: the first example of each answer, then the second of each, and so on."""
    turns: list[tuple[int, int]] = []
    counts: dict[int, int] = {}
    for index, answer in enumerate(answers.tolist()):
        counts[answer] = counts.get(answer, 0) + 1
        turns.append((counts[answer], index))
    return [index for _, index in sorted(turns)]


def _packed(array: NDArray[Any]) -> str:
    # The bytes are little-endian on every machine.
    raw = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def _unpacked(text: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    size = prod(shape) * dtype.itemsize
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    # One byte more than is due, to see that it ends there, and no others: a few could unpack to gigabytes.
    unpacking = zlib.decompressobj()
    raw = unpacking.decompress(content, size + 1)
    if len(raw) != size or not unpacking.eof:
        raise ValueError(f"not the {size} bytes of {dtype} of shape {shape}")
    array = np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape).astype(dtype)
    if not np.isfinite(array).all():
        raise ValueError("numbers that are not finite")
    return array
