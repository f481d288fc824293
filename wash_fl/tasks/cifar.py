"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from their binary files: the others are pickled.

Looked for in the folder ``$WASH_FL_DATA``, else downloaded into it. A record is one byte for the class (in
CIFAR-100 one for its group before that) and 3,072 for the pixels: 32 rows of 32, red, then green, then blue.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import Dataset

from wash_fl.errors import DataError, reason_of
from wash_fl.tasks.downloads import data_folder
from wash_fl.tasks.task import Examples, import_extra

SHAPE: Final = (3, 32, 32)
_PIXELS: Final = 3 * 32 * 32
_SITE: Final = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Source:
    """One of the two data sets.

    Attributes
    ----------
    archive, md5 : str
        The file to download, and what it must be.
    folder : str
        What it is unpacked to.
    train, test : tuple of str
        The files of each part.
    labels : int
        Bytes before the pixels; the last is the class.
    classes : int
        How many there are.
    mean, std : tuple of float
        Of the training images' channels, after division by 255.
    """

    archive: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def preprocessing(self) -> str:
        """One sentence: how an image becomes what the model is given."""
        return (
            "32x32 RGB values 0 to 255, channels first, divided by 255, minus "
            f"{', '.join(map(str, self.mean))}, divided by {', '.join(map(str, self.std))}."
        )


CIFAR10: Final = Source(
    "cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-batches-bin",
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    ("test_batch.bin",),
    labels=1,
    classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
CIFAR100: Final = Source(
    "cifar-100-binary.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8",
    "cifar-100-binary",
    ("train.bin",),
    ("test.bin",),
    labels=2,
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


class Images(Dataset[tuple[Any, ...]]):
    """Images as bytes, normalised when they are asked for: as floats they would be four times as large.

    Parameters
    ----------
    pixels : Tensor of uint8, shape (examples, 3, 32, 32)
    classes : Tensor of int64, shape (examples,)
    source : Source
        How they are normalised.
    """

    def __init__(self, pixels: torch.Tensor, classes: torch.Tensor, source: Source) -> None:
        self._pixels = pixels
        self._classes = classes
        self._mean = torch.tensor(source.mean).view(3, 1, 1)
        self._std = torch.tensor(source.std).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self._classes)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = self._pixels[index].float().div_(255).sub_(self._mean).div_(self._std)
        return inputs, self._classes[index]


def load(source: Source, files: tuple[str, ...]) -> Examples:
    """Return the examples in some of a data set's files.

    Raises
    ------
    DataError
        If they are neither here nor downloadable, or one of them is damaged.
    """
    folder = _find(source)
    parts = [_read(folder / name, source) for name in files]
    pixels, classes = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Images(torch.from_numpy(pixels), torch.from_numpy(classes), source)


def _read(path: Path, source: Source) -> tuple[Any, Any]:
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): delete or replace it.") from error
    size = source.labels + _PIXELS
    if not raw.size or raw.size % size:
        raise DataError(f"{path} has {raw.size} bytes, which are no records of {size}: replace it.")
    records = raw.reshape(-1, size)
    classes = records[:, source.labels - 1].astype(np.int64)
    if classes.max() >= source.classes:
        raise DataError(
            f"{path} has the class {classes.max()}, and {source.classes - 1} is the last: replace it."
        )
    return records[:, source.labels :].reshape(-1, *SHAPE), classes


def _find(source: Source) -> Path:
    own = data_folder()
    folder = own / source.folder
    if all((folder / name).is_file() for name in (*source.train, *source.test)):
        return folder
    try:
        _download(source, own)
    except (OSError, RuntimeError, DataError) as error:
        raise DataError(
            f"the files of {source.folder} are not in {own}, and the download failed ({reason_of(error)}): "
            f"connect to a network, or unpack {source.archive} there (WASH_FL_DATA names another folder)."
        ) from error
    return folder


def _download(source: Source, own: Path) -> None:
    utils = import_extra("torchvision.datasets.utils", "the download of CIFAR")
    own.mkdir(parents=True, exist_ok=True)
    # Clients on one machine may start together: only a whole folder ever appears under its final name.
    with tempfile.TemporaryDirectory(dir=own) as temporary:
        utils.download_and_extract_archive(_SITE + source.archive, temporary, md5=source.md5)
        unpacked = Path(temporary) / source.folder
        missing = [name for name in (*source.train, *source.test) if not (unpacked / name).is_file()]
        if missing:
            raise DataError(f"{source.archive} has no {', '.join(missing)}")
        target = own / source.folder
        if not target.exists():
            unpacked.replace(target)
