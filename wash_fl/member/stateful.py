"""What a training loop keeps besides model and optimizer: schedulers, averages, scalers, counters.

Whatever has ``state_dict`` and ``load_state_dict`` can be kept with a member. What it gives is packed into
JSON and tensors, so that it goes into a snapshot's file without pickle; what comes back is of the same types.
"""

import json
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, runtime_checkable

import numpy as np
import torch

from wash_fl.errors import ConfigError, StateError, reason_of
from wash_fl.member.parameters import owned


@runtime_checkable
class Stateful(Protocol):
    """What can say its state and take it back, as PyTorch's schedulers, modules and scalers do."""

    def state_dict(self) -> Any:
        """Return the state."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take over a state."""


States = Mapping[str, Stateful]
"""What is kept, by the name that a client gives it."""


def check_stateful(states: States, kept: Mapping[str, object]) -> None:
    """Check what a client hands over to be kept.

    Parameters
    ----------
    states : mapping of str to Stateful
        It.
    kept : mapping of str to object
        What is kept already, by what it is.

    Raises
    ------
    ConfigError
        If it is no mapping of names to objects that have ``state_dict`` and ``load_state_dict``, or one of
        them is kept already.
    """
    if not isinstance(states, Mapping):
        raise ConfigError(
            f"state is a {type(states).__name__}: use a mapping of names of your own, such as "
            'state={"schedule": schedule}.'
        )
    for name, each in states.items():
        if not isinstance(name, str):
            raise ConfigError(f"state has the name {name!r}, a {type(name).__name__}: use a text.")
        for what, already in kept.items():
            if each is already:
                raise ConfigError(f"{_called(name)} is the {what}, which is kept anyway: leave it out.")
        if isinstance(each, type) or not isinstance(each, Stateful):
            what = f"the class {each.__name__}" if isinstance(each, type) else f"a {type(each).__name__}"
            raise ConfigError(
                f"{_called(name)} is {what}, and not an object with state_dict and load_state_dict: hand "
                "over the object itself, such as a scheduler."
            )


_DICTS: Final = {"!dict": dict, "!OrderedDict": OrderedDict, "!Counter": Counter}
_SEQUENCES: Final = {"!tuple": tuple, "!set": set, "!frozenset": frozenset}
_METADATA: Final = "!metadata"


@dataclass(frozen=True, eq=False)
class PackedStates:
    """The states of all that is kept, at one moment; nothing changes it.

    Attributes
    ----------
    text : str
        All of them as one JSON object, by name. A value that JSON does not have is an object whose first key
        begins with ``!`` and says its type.
    tensors : tuple of torch.Tensor
        On the CPU; the text names them by their place.
    """

    text: str
    tensors: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, states: States) -> Self | None:
        """Return a copy of the states as they are now; None if nothing is kept.

        Raises
        ------
        StateError
            If one holds what cannot be kept; its key and type are named.
        """
        if not states:
            return None
        packer = _Packer()
        tree = {name: packer.whole(name, each) for name, each in states.items()}
        return cls(json.dumps(tree, allow_nan=False), tuple(packer.tensors))

    def names(self) -> set[str]:
        """Return the names under which states were kept."""
        return set(json.loads(self.text))

    def restore(self, states: States) -> None:
        """Give each its state back.

        Raises
        ------
        StateError
            If one does not take it.
        """
        tree = json.loads(self.text)
        for name, each in states.items():
            try:
                each.load_state_dict(self._unpacked(tree[name]))
            except Exception as error:
                raise StateError(
                    f"{_called(name)}, a {type(each).__name__}, does not take the state that was kept "
                    f"({type(error).__name__}: {reason_of(error, 200)}): use what the run began with, or "
                    "another run-name."
                ) from error

    def _unpacked(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self._unpacked(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        tag = next(iter(tree), "")
        if not tag.startswith("!"):
            return {key: self._unpacked(each) for key, each in tree.items()}
        content = tree[tag]
        if tag == "!float":
            return float(content)
        if tag in _SEQUENCES:
            return _SEQUENCES[tag](self._unpacked(each) for each in content)
        if tag in _DICTS:
            made = _DICTS[tag]({self._unpacked(key): self._unpacked(each) for key, each in content})
            if _METADATA in tree:
                made._metadata = self._unpacked(tree[_METADATA])
            return made
        tensor = self.tensors[content].clone()
        if tag == "!tensor":
            return tensor
        return tensor.numpy() if tag == "!array" else tensor.numpy()[()]


class _Packer:
    """Turns values into JSON, and gathers their tensors."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []

    def whole(self, name: str, stateful: Stateful) -> Any:
        """Return the state of one object as JSON."""
        try:
            return self.packed(_state_of(name, stateful), _called(name))
        except RecursionError as error:
            raise StateError(f"{_called(name)} holds itself, or is nested too deep to be kept.") from error

    def packed(self, value: Any, where: str) -> Any:
        """Return a value as JSON; ``where`` it is, is for messages."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"!float": repr(value)}
        if kind is list:
            return self._each(value, where)
        for tag, sequence in _SEQUENCES.items():
            if kind is sequence:
                return {tag: self._each(value, where)}
        for tag, mapping in _DICTS.items():
            if kind is mapping:
                return self._mapping(tag, value, where)
        tensor = _tensor_of(value)
        if tensor is None:
            raise StateError(
                f"{where} is of type {kind.__module__}.{kind.__qualname__} and cannot be kept: a state_dict()"
                " may hold numbers, texts, lists, tuples, sets, dicts, tensors and NumPy's arrays of numbers."
            )
        self.tensors.append(tensor)
        tag = "!tensor" if isinstance(value, torch.Tensor) else "!array" if kind is np.ndarray else "!number"
        return {tag: len(self.tensors) - 1}

    def _each(self, values: Any, where: str) -> list[Any]:
        return [self.packed(each, f"{where}[{place}]") for place, each in enumerate(values)]

    def _mapping(self, tag: str, value: Any, where: str) -> dict[str, Any]:
        entries = {key: self.packed(each, f"{where}[{key!r}]") for key, each in value.items()}
        if tag == "!dict" and all(type(key) is str and not key.startswith("!") for key in entries):
            return entries
        pairs = [[self._key(key, where), each] for key, each in entries.items()]
        # Modules keep there which version of a state it is.
        metadata = getattr(value, "_metadata", None)
        more = {} if metadata is None else {_METADATA: self.packed(metadata, f"{where}._metadata")}
        return {tag: pairs, **more}

    def _key(self, key: Any, where: str) -> Any:
        if isinstance(key, (torch.Tensor, np.generic)):
            raise StateError(f"{where} has a key of type {type(key).__name__}, which cannot be kept.")
        return self.packed(key, f"a key of {where}")


def _called(name: str) -> str:
    return f"state[{name!r}]"


def _state_of(name: str, stateful: Stateful) -> Any:
    try:
        return stateful.state_dict()
    except Exception as error:
        raise StateError(
            f"{_called(name)}.state_dict() of a {type(stateful).__name__} raised "
            f"{type(error).__name__}: {reason_of(error, 200)}."
        ) from error


def _tensor_of(value: Any) -> torch.Tensor | None:
    """Return a tensor, or an array or number of NumPy, as a copy on the CPU; None for anything else."""
    if isinstance(value, torch.Tensor):
        odd = value.is_meta or value.is_complex() or value.is_quantized or value.layout is not torch.strided
        return None if odd else owned(value)
    if type(value) is np.ndarray or isinstance(value, np.generic):
        try:
            tensor = torch.from_numpy(np.array(value, order="C"))
        except (TypeError, ValueError):  # no numbers, or in another byte order
            return None
        return None if tensor.is_complex() else tensor
    return None
