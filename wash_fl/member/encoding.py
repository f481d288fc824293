"""A snapshot as a file: one safetensors file in which every bit is under a checksum."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from wash_fl.core.anchor import Anchor
from wash_fl.core.identity import weights_sha256
from wash_fl.errors import StateError
from wash_fl.member.snapshot import Progress, Snapshot
from wash_fl.member.stateful import PackedStates

FORMAT: Final = "wash-fl member 2"
WITH_STATES: Final = "wash-fl member 3"
"""The same, and besides what a training loop keeps; who does not know it must not go on without."""
WITH_ANCHOR: Final = "wash-fl member 4"
"""The first, and besides an anchor."""
WITH_BOTH: Final = "wash-fl member 5"
_FORMATS: Final = (FORMAT, WITH_STATES, WITH_ANCHOR, WITH_BOTH)
"""By whether there are states, and twice whether there is an anchor."""


class Damage(Exception):  # noqa: N818 (never seen by a user: another copy is tried first)
    """A file is not what was written; the message says what is wrong."""


def encode(snapshot: Snapshot) -> bytes:
    """Return the content of a snapshot's file.

    Raises
    ------
    StateError
        If a setting of the optimizer is no plain number.
    """
    optimizer, scalars = _split_optimizer(snapshot)
    tensors = {f"model.{name}": each for name, each in snapshot.model.items()} | optimizer
    if snapshot.offer is not None:
        tensors["offer"] = torch.from_numpy(snapshot.offer)
    states, anchor = snapshot.states, snapshot.anchor
    if anchor is not None:
        tensors["anchor"] = torch.from_numpy(anchor.values)
        tensors["chain"] = torch.frombuffer(bytearray(anchor.chain.to_bytes(8, "little")), dtype=torch.uint8)
    if states is not None:
        tensors |= {f"states.{place}": each for place, each in enumerate(states.tensors)}
    metadata = {
        "format": _FORMATS[(states is not None) + 2 * (anchor is not None)],
        "progress": json.dumps(asdict(snapshot.progress)),
        "optimizer": json.dumps(scalars),
        "tensors": _checksum(tensors),
    }
    if states is not None:
        metadata["states"] = states.text
    metadata["checksum"] = _seal(metadata)
    return to_safetensors(tensors, metadata)


def read(path: Path) -> Snapshot:
    """Read a snapshot's file, and check every bit of it.

    Raises
    ------
    Damage
        If it is not what was written.
    StateError
        If it is no member's state, of another version, or cannot be read at all.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") in _FORMATS and metadata["checksum"] != _seal(metadata):
                raise Damage("a bit of its header has changed")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise StateError(f"{path} cannot be read ({error.strerror or error}): mend that.") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Damage(_reason(error)) from error
    if metadata.get("format") not in _FORMATS:
        raise StateError(
            f"{path} has the format {metadata.get('format')!r}, expected {FORMAT!r} to {WITH_BOTH!r}: it "
            "is not a member's state, or of another version. Move it away to start this member anew."
        )
    if metadata["tensors"] != _checksum(tensors):
        raise Damage("a bit of its tensors has changed")
    try:
        progress = Progress(**json.loads(metadata["progress"]))
        scalars = json.loads(metadata["optimizer"])
        return Snapshot(
            progress=progress,
            model={
                name.removeprefix("model."): each
                for name, each in tensors.items()
                if name.startswith("model.")
            },
            optimizer=_join_optimizer(tensors, scalars),
            optimizer_class=scalars["class"],
            offer=tensors["offer"].numpy() if "offer" in tensors else None,
            states=_join_states(tensors, metadata),
            anchor=_anchor(tensors, metadata),
            source=str(path),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damage(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _seal(metadata: dict[str, str]) -> str:
    """Return the hash of the metadata: a digit of the round that changed would still be a round."""
    more = ("states",) if metadata["format"] in (WITH_STATES, WITH_BOTH) else ()
    sealed = [metadata[name] for name in ("format", "progress", "optimizer", "tensors", *more)]
    return hashlib.sha256(json.dumps(sealed).encode()).hexdigest()


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    """Return the hash of all tensors, names, dtypes, shapes and bits: small boards' flash forgets."""
    kinds = {name: [str(each.dtype), list(each.shape)] for name, each in tensors.items()}
    content = weights_sha256(
        {name: each.reshape(-1).view(torch.uint8).numpy() for name, each in tensors.items()}
    )
    return hashlib.sha256(f"{json.dumps(kinds, sort_keys=True)} {content}".encode()).hexdigest()


def _split_optimizer(snapshot: Snapshot) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state dict into tensors, by name, and the JSON of all the rest."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {
        "class": snapshot.optimizer_class,
        "state": {},
        "param_groups": snapshot.optimizer["param_groups"],
    }
    for index, entries in snapshot.optimizer["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                scalars["state"].setdefault(str(index), {})[key] = value
    try:
        json.dumps(scalars)
    except TypeError as error:
        raise StateError(
            f"the optimizer {snapshot.optimizer_class} has a setting that cannot be saved ({error}): "
            "use plain numbers."
        ) from error
    return tensors, scalars


def _join_optimizer(tensors: dict[str, torch.Tensor], scalars: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(index): dict(each) for index, each in scalars["state"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": scalars["param_groups"]}


def _join_states(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> PackedStates | None:
    if metadata["format"] not in (WITH_STATES, WITH_BOTH):
        return None
    count = sum(name.startswith("states.") for name in tensors)
    return PackedStates(metadata["states"], tuple(tensors[f"states.{place}"] for place in range(count)))


def _anchor(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Anchor | None:
    if metadata["format"] not in (WITH_ANCHOR, WITH_BOTH):
        return None
    return Anchor(tensors["anchor"].numpy(), int.from_bytes(bytes(tensors["chain"].tolist()), "little"))
