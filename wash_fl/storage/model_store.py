"""The members' whole models on disk, until it is known which of them are averaged."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from wash_fl.storage.weights_file import Arrays, read_weights, write_weights


class ModelStore:
    """Keeps models as they were handed in, a file for each.

    Parameters
    ----------
    folder : Path
        Where; it is there.

    Attributes
    ----------
    members : list of int
        Whose models there are, in the order in which they came.
    """

    def __init__(self, folder: Path) -> None:
        self.members: list[int] = []
        self._folder = folder

    def put(self, member: int, arrays: Arrays) -> None:
        """Write a member's state dict."""
        write_weights(self._path(member), arrays)
        self.members.append(member)

    def model(self, member: int) -> dict[str, NDArray[Any]]:
        """Return a member's state dict, read anew."""
        return read_weights(self._path(member))

    def entry(self, member: int, name: str) -> NDArray[Any]:
        """Return one entry of a member's state dict, read anew."""
        with safe_open(self._path(member), framework="np") as file:
            return np.asarray(file.get_tensor(name))

    def _path(self, member: int) -> Path:
        return self._folder / f"{member}.safetensors"
