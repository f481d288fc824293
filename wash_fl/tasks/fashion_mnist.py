"""Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 grey images of 28x28 pixels, 10 classes.

Read from Debian's package ``dataset-fashion-mnist``, else from the folder ``$WASH_FL_DATA``, else
downloaded into that folder by torchvision.
"""

import gzip
import math
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import TensorDataset

from wash_fl.errors import DataError, reason_of
from wash_fl.tasks.downloads import data_folder
from wash_fl.tasks.models import small_cnn
from wash_fl.tasks.task import Examples, import_extra

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
INPUT_SHAPE = (1, 28, 28)
# Mean and standard deviation of the training images' pixels, after division by 255.
MEAN, STD = 0.2860, 0.3530
PREPROCESSING = f"28x28 grey values 0 to 255, divided by 255, minus {MEAN:.4f}, divided by {STD:.4f}."
NORMALIZATION = (MEAN, STD)

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def model() -> nn.Module:
    """Return a new small CNN with BatchNorm (about 24,000 parameters)."""
    return small_cnn(INPUT_SHAPE[0], len(CLASSES))


def train_data() -> Examples:
    """Return 60,000 examples: normalised float32 inputs of shape (1, 28, 28), int64 classes.

    Raises
    ------
    DataError
        If the files are neither here nor downloadable, or one of them is damaged.
    """
    return _part("train")


def test_data() -> Examples:
    """Return 10,000 examples, as :func:`train_data` does."""
    return _part("t10k")


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Parameters
    ----------
    path : Path
        Starts, after decompression, with the bytes 0, 0, 8 (unsigned byte), ``dimensions``; then each
        size as a big-endian 32-bit integer; then the values (LeCun, "The MNIST database").
    dimensions : int
        How many dimensions the array must have.

    Raises
    ------
    DataError
        If the file cannot be read, is truncated, or is not of this form; the message names it.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({error}): delete or replace it.") from error
    magic = bytes([0, 0, 8, dimensions])
    if raw[:4] != magic:
        raise DataError(
            f"{path} starts with {raw[:4].hex() or 'nothing'} where an IDX file of {dimensions} dimensions "
            f"starts with {magic.hex()}: replace it."
        )
    start = 4 + 4 * dimensions
    sizes = [int(size) for size in np.frombuffer(raw[4:start].ljust(start - 4, b"\0"), dtype=">u4")]
    if len(raw) != start + math.prod(sizes):
        raise DataError(
            f"{path} has {len(raw)} bytes where its header, sizes {sizes}, asks for "
            f"{start + math.prod(sizes)}: replace it."
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(sizes)


def _part(part: str) -> Examples:
    names = f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"
    folder = _find(names)
    images, labels = read_idx(folder / names[0], 3), read_idx(folder / names[1], 1)
    if images.shape != (len(labels), *INPUT_SHAPE[1:]):
        raise DataError(
            f"{folder / names[0]} has the shape {images.shape} where {(len(labels), *INPUT_SHAPE[1:])} is "
            "due, one image of 28x28 for each label: replace both files."
        )
    if labels.max(initial=0) >= len(CLASSES):
        raise DataError(f"{folder / names[1]} has the label {labels.max()}, and 9 is the last: replace it.")
    inputs = torch.from_numpy(images.astype(np.float32)).div_(255).sub_(MEAN).div_(STD)
    return TensorDataset(inputs.unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))


def _find(names: tuple[str, str]) -> Path:
    own = data_folder()
    # The last is where torchvision keeps the files, for a user who has them already.
    folders = (DEBIAN_FOLDER, own, own / "FashionMNIST" / "raw")
    for folder in folders:
        if all((folder / name).is_file() for name in names):
            return folder
    try:
        _download(own)
    except (OSError, RuntimeError, DataError) as error:
        raise DataError(
            f"no Fashion-MNIST: {' and '.join(names)} are not in {', '.join(map(str, folders))}, and the "
            f"download failed ({reason_of(error)}): `apt install dataset-fashion-mnist`, connect to a "
            "network, or set WASH_FL_DATA to a folder with the files."
        ) from error
    return own


def _download(folder: Path) -> None:
    datasets = import_extra("torchvision.datasets", "the download of Fashion-MNIST")
    folder.mkdir(parents=True, exist_ok=True)
    # Clients on one machine may start together: only whole files ever appear under their final names.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        datasets.FashionMNIST(temporary, download=True)
        for path in Path(temporary).glob("FashionMNIST/raw/*.gz"):
            path.replace(folder / path.name)
