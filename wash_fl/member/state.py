"""A member on disk: everything that must outlive its process, in one safetensors file.

A Flower deployment starts a new process for every message, so this file, and nothing in memory, is the
member. It is replaced as a whole: an interrupted write leaves the state before it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch.optim import Optimizer

from wash_fl.core.identity import weights_sha256
from wash_fl.errors import StateError
from wash_fl.files import write_bytes
from wash_fl.member.member import Member

FORMAT = "wash-fl member 1"
FILE = "state.safetensors"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a member is.

    Attributes
    ----------
    run : str
        Identity of the run, hexadecimal.
    member : int
        Index of the member.
    layout : str
        Fingerprint of what it exchanges, hexadecimal.
    settings : str
        The terms of the run it agreed to when it joined, as JSON.
    initial : str
        Hash of the weights it started from.
    round : int
        The last round it trained in; 0 before the first.
    step : int
        Optimizer steps taken so far.
    applied : int
        The last exchange whose delivery it applied.
    """

    run: str
    member: int
    layout: str
    settings: str
    initial: str
    round: int = 0
    step: int = 0
    applied: int = 0

    def after(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def state_path(folder: Path, run: bytes, member: int) -> Path:
    """Return where a member's state of a run is kept under a device's state folder."""
    return folder / run.hex() / f"member-{member}" / FILE


def save(path: Path, member: Member, progress: Progress, offer: NDArray[np.float32] | None = None) -> None:
    """Write a member, how far it is, and the offer it has made, atomically and synced to disk.

    Raises
    ------
    StateError
        If the disk is full or cannot be written; the state that was there before is kept.
    """
    optimizer, scalars = _pack_optimizer(member.optimizer)
    tensors = {f"model.{name}": _owned(each) for name, each in member.model.state_dict().items()} | optimizer
    if offer is not None:
        tensors["offer"] = torch.from_numpy(offer.copy())
    metadata = {
        "format": FORMAT,
        "progress": json.dumps(asdict(progress)),
        "optimizer": json.dumps(scalars),
        "tensors": _checksum(tensors),
    }
    metadata["checksum"] = _seal(metadata)
    try:
        write_bytes(path, to_safetensors(tensors, metadata))
    except OSError as error:
        raise StateError(
            f"{path} cannot be written ({error.strerror or error}); the state before it is kept. "
            "Free some space, or use another state-dir."
        ) from error


def read_progress(path: Path) -> Progress | None:
    """Return how far the member in a file is; None if there is no file.

    Raises
    ------
    StateError
        If the file is damaged, or of another format.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise StateError(
                f"{path} has the format {metadata.get('format')!r}, expected {FORMAT!r}: it is not a "
                "member's state, or of another version. Move it away to start this member anew."
            )
        if metadata["checksum"] != _seal(metadata):
            raise _damaged(path, "a bit of its header has changed")
        return Progress(**json.loads(metadata["progress"]))
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from error


def load(path: Path, member: Member, progress: Progress) -> NDArray[np.float32] | None:
    """Restore a member's model and optimizer, and return the offer it had made, if any.

    Raises
    ------
    StateError
        If the state is of another model or optimizer, or damaged.
    """
    if progress.layout != member.layout.fingerprint.hex():
        raise StateError(
            f"{path} is the state of another model: its layout is {progress.layout[:16]}, this model's is "
            f"{member.layout.fingerprint.hex()[:16]}. Use the model the run began with, or another state-dir."
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        intact = metadata["tensors"] == _checksum(tensors)
        scalars = json.loads(metadata["optimizer"])
        kind = scalars["class"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    if not intact:
        raise _damaged(path, "a bit of its tensors has changed")
    if kind != type(member.optimizer).__name__:
        # PyTorch would take it, and fail at the next step.
        raise StateError(
            f"{path} holds the state of the optimizer {kind}, and this member's is "
            f"{type(member.optimizer).__name__}: use the one the run began with, or another state-dir."
        )
    try:
        model = {
            name.removeprefix("model."): each for name, each in tensors.items() if name.startswith("model.")
        }
        member.model.load_state_dict(model)
        _unpack_optimizer(member.optimizer, tensors, scalars)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    member.applied = progress.applied
    return tensors["offer"].numpy() if "offer" in tensors else None


def _seal(metadata: dict[str, str]) -> str:
    """Return the hash of the metadata: a digit of the round that changed would still be a round."""
    sealed = [metadata[name] for name in ("format", "progress", "optimizer", "tensors")]
    return hashlib.sha256(json.dumps(sealed).encode()).hexdigest()


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    """Return the hash of all tensors, their names and bits: the flash memory of small boards forgets."""
    return weights_sha256(
        {name: each.reshape(-1).view(torch.uint8).numpy() for name, each in tensors.items()}
    )


def _damaged(path: Path, error: Exception | str) -> StateError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StateError(f"{path} is damaged ({reason}): move it away to start this member anew.")


def _pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state dict into tensors, by name, and the JSON of all the rest."""
    content = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {
        "class": type(optimizer).__name__,
        "state": {},
        "param_groups": content["param_groups"],
    }
    for index, entries in content["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = _owned(value)
            else:
                scalars["state"].setdefault(str(index), {})[key] = value
    try:
        json.dumps(scalars)
    except TypeError as error:
        raise StateError(
            f"the optimizer {type(optimizer).__name__} has a setting that cannot be saved ({error}): "
            "use plain numbers."
        ) from error
    return tensors, scalars


def _unpack_optimizer(
    optimizer: Optimizer, tensors: dict[str, torch.Tensor], scalars: dict[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {int(index): dict(each) for index, each in scalars["state"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": scalars["param_groups"]})


def _owned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous copy on the CPU: safetensors refuses tensors that share memory, as tied ones do."""
    return tensor.detach().to("cpu", copy=True).contiguous()
