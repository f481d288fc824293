"""What an ONNX file says about itself: classes, input, preprocessing, and the run it comes from."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final, TypeVar

import numpy as np

from wash_fl.errors import ExportError
from wash_fl.export.images import is_picture
from wash_fl.export.normalization import Normalization
from wash_fl.export.text import short

PREFIX: Final = "wash_fl."

INPUT_TYPES: Final = ("float32", "int64", "int32", "uint8")
"""Of one value of an input that is prepared already: numbers, or the numbers of tokens, or bytes."""

LOGITS, PROBABILITIES = "logits", "probabilities"

Part = TypeVar("Part", Normalization, "Quantization")


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How a file in int8 was made from the float32 file.

    Parameters
    ----------
    target : str
        The kind of processor that it is for: ``"arm64"`` or ``"x86"``.
    in_float : tuple of str
        The layers that stay in float32, for in int8 they would hurt too much.

    Raises
    ------
    ExportError
        If a part is of another type.
    """

    target: str
    in_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        layers = self.in_float
        _check("target", self.target, isinstance(self.target, str), "a name")
        fits = isinstance(layers, tuple) and all(isinstance(name, str) for name in layers)
        _check("in_float", layers, fits, "a tuple of layers' names")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a device needs to use a model, and what an owner needs to trace it.

    Parameters
    ----------
    classes : tuple of str
        The names of the classes, in the order of the model's outputs.
    input_shape : tuple of int
        The shape of one input, without the batch dimension.
    preprocessing : str
        One sentence: how a raw input becomes what the model is given.
    run : mapping of str to str
        The run's identity: its name, seed, members, the weights' sha256, the version of wash_fl.
    normalization : Normalization, optional
        The same as ``preprocessing`` in numbers, for raw values: pixels of image files, readings in CSV
        files. Without it a device can use inputs that are prepared already, and no others.
    quantization : Quantization, optional
        Of a file in int8; None for float32.
    raw_inputs : bool
        The file prepares its inputs itself: it is given bytes where they are pictures, readings elsewhere.
    input_type : str
        The dtype of an input that is prepared already, one of :data:`INPUT_TYPES`.
    input_range : (float, float), optional
        The least and the largest value in the prepared inputs that the file was checked on.
    outputs : str
        ``"logits"``, or ``"probabilities"`` if the model ends in softmax: rows that are not negative and
        sum to 1.
    columns : tuple of str
        The names of an input's channels (its first dimension) in their order, as in a table's first line;
        empty if nobody has named them.

    Raises
    ------
    ExportError
        If a part is of another type, there is no class, or a size is not positive.

    Examples
    --------
    >>> card = ModelCard(classes=("cat", "dog"), input_shape=(3, 32, 32), preprocessing="x / 255")
    >>> ModelCard.from_metadata(card.to_metadata()) == card
    True
    """

    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    preprocessing: str = ""
    run: Mapping[str, str] = field(default_factory=dict, hash=False)
    normalization: Normalization | None = None
    quantization: Quantization | None = None
    raw_inputs: bool = False
    input_type: str = "float32"
    input_range: tuple[float, float] | None = None
    outputs: str = LOGITS
    columns: tuple[str, ...] = ()

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Of an input as the file is given it: bytes of raw pictures, otherwise ``input_type``."""
        return np.dtype("uint8" if self.raw_inputs and is_picture(self.input_shape) else self.input_type)

    def __post_init__(self) -> None:
        _check("classes", self.classes, _is_names(self.classes), "a tuple of at least one class name")
        _check("input_shape", self.input_shape, _is_shape(self.input_shape), "a tuple of positive integers")
        _check("preprocessing", self.preprocessing, isinstance(self.preprocessing, str), "a sentence")
        _check("run", self.run, _is_identity(self.run), "a mapping of strings to strings")
        shape, normalization = self.input_shape, self.normalization
        _check(
            "normalization",
            normalization,
            normalization is None or (isinstance(normalization, Normalization) and normalization.fits(shape)),
            f"None, or one mean and std for all channels or for each one of an input of shape {shape}",
        )
        quantization = self.quantization
        _check(
            "quantization",
            quantization,
            quantization is None or isinstance(quantization, Quantization),
            "a Quantization or None",
        )
        raw = self.raw_inputs
        valid = raw is False or (raw is True and normalization is not None)
        _check("raw_inputs", raw, valid, "false, or true beside a normalization")
        kind = self.input_type
        # What is normalized is a number with a unit, never the number of a token.
        valid = kind == "float32" or (kind in INPUT_TYPES and normalization is None)
        _check("input_type", kind, valid, f"one of {', '.join(INPUT_TYPES)}, float32 beside a normalization")
        _check("input_range", self.input_range, _is_range(self.input_range), "None, or (least, largest)")
        valid = self.outputs in {LOGITS, PROBABILITIES}
        _check("outputs", self.outputs, valid, f"{LOGITS!r} or {PROBABILITIES!r}")
        fits = self.columns == () or (_is_names(self.columns) and len(self.columns) == shape[0])
        fits = fits and len(set(self.columns)) == len(self.columns)
        _check("columns", self.columns, fits, f"a different name for each of {shape[0]} channels, or none")

    def to_metadata(self) -> dict[str, str]:
        """Return the card as the string key-value metadata of an ONNX file: each value is JSON."""
        parts: dict[str, Any] = {
            "classes": self.classes,
            "input_shape": self.input_shape,
            "preprocessing": self.preprocessing,
            "run": dict(self.run),
        }
        for name in ("normalization", "quantization"):
            part = getattr(self, name)
            if part is not None:
                parts[name] = dataclasses.asdict(part)
        for name, unused in _LATER.items():
            if getattr(self, name) != unused:
                parts[name] = getattr(self, name)
        return {PREFIX + name: json.dumps(part) for name, part in parts.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "ModelCard":
        """Read a card; the inverse of :meth:`to_metadata`. Keys of other programs are passed over.

        Raises
        ------
        ExportError
            If a key is missing, or its value is not what :meth:`to_metadata` writes.
        """
        return cls(
            classes=_tuple(_read(metadata, "classes")),
            input_shape=_tuple(_read(metadata, "input_shape")),
            preprocessing=_read(metadata, "preprocessing"),
            run=_read(metadata, "run"),
            normalization=_optional(metadata, "normalization", Normalization),
            quantization=_optional(metadata, "quantization", Quantization),
            **{name: _tuple(_read(metadata, name)) for name in _LATER if PREFIX + name in metadata},
        )


_LATER: Final = {
    "raw_inputs": False,
    "input_type": "float32",
    "input_range": None,
    "outputs": LOGITS,
    "columns": (),
}
"""Parts that are left out where they say nothing."""


def _read(metadata: Mapping[str, str], name: str) -> Any:
    key = PREFIX + name
    if key not in metadata:
        raise ExportError(f"the metadata has no {key}: give an ONNX file that wash_fl has written.")
    try:
        return json.loads(metadata[key])
    except (ValueError, RecursionError) as error:
        raise ExportError(
            f"the metadata's {key} is damaged, {short(metadata[key])} is not JSON: export the model again."
        ) from error


def _optional(metadata: Mapping[str, str], name: str, kind: type[Part]) -> Part | None:
    if PREFIX + name not in metadata:
        return None
    part = _read(metadata, name)
    fields = [each.name for each in dataclasses.fields(kind)]
    if not isinstance(part, dict) or part.keys() != set(fields):
        raise ExportError(
            f"the metadata's {PREFIX}{name} must be an object of {' and '.join(fields)}, got {short(part)}: "
            "export the model again."
        )
    return kind(**{key: _tuple(value) for key, value in part.items()})


def _tuple(part: Any) -> Any:
    return tuple(part) if isinstance(part, list) else part


def _check(name: str, part: Any, fits: bool, allowed: str) -> None:
    if not fits:
        raise ExportError(f"the model card's {name} must be {allowed}, got {short(part)}: mend the card.")


def _is_names(part: Any) -> bool:
    return isinstance(part, tuple) and len(part) > 0 and all(isinstance(name, str) for name in part)


def _is_shape(part: Any) -> bool:
    # type() and not isinstance(): JSON's true is a bool, and a bool is an int.
    return isinstance(part, tuple) and all(type(size) is int and size > 0 for size in part)


def _is_range(part: Any) -> bool:
    if part is None:
        return True
    numbers = isinstance(part, tuple) and len(part) == 2 and all(type(each) in {int, float} for each in part)
    return numbers and all(isfinite(each) for each in part) and part[0] <= part[1]


def _is_identity(part: Any) -> bool:
    return isinstance(part, Mapping) and all(
        isinstance(key, str) and isinstance(value, str) for key, value in part.items()
    )
