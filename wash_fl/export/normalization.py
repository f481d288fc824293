"""How a raw value becomes what a model is given: in numbers, so that a device can do it by itself."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.text import short


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """A raw value minus the mean, divided by std; in each channel.

    A pixel of an image file is in 0..1 before that, a reading of a CSV file is in its own unit.

    Parameters
    ----------
    mean, std : tuple of float
        One for each channel (the first dimension of an input), or a single one for all of them.

    Raises
    ------
    ExportError
        If they are not finite numbers, as many of one as of the other, or a std is not above 0.

    Examples
    --------
    >>> halves = Normalization(mean=(0.5,), std=(0.25,))
    >>> halves.apply(np.ones((1, 3, 2, 2), dtype=np.float32)).max()
    np.float32(2.0)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not (_numbers(self.mean) and _numbers(self.std) and len(self.mean) == len(self.std)):
            raise ExportError(
                "the normalization must be two tuples, mean and std, of as many finite numbers, got "
                f"{short(self.mean)} and {short(self.std)}: give one for each channel, or one for all."
            )
        if min(self.std) <= 0:
            raise ExportError(
                f"the normalization's std must be above 0, got {short(self.std)}: inputs are divided by it."
            )

    def fits(self, input_shape: tuple[int, ...]) -> bool:
        """Tell whether there is one mean for each channel of such an input, or one for all."""
        return len(self.mean) in {1, *input_shape[:1]}

    def apply(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return raw inputs as a model is given them.

        Parameters
        ----------
        raw : ndarray of float32, shape (n, channels, ...)

        Returns
        -------
        ndarray of float32, of the same shape
        """
        # In float32 from the start, as torch does it: an exported model is given what it was trained on.
        mean, std = self._along(raw.ndim, np.float32)
        return np.asarray((raw - mean) / std, dtype=np.float32)

    def undo(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return the raw inputs of which :meth:`apply` makes these, shape (n, channels, ...)."""
        mean, std = self._along(inputs.ndim, np.float64)
        return np.asarray(inputs * std + mean, dtype=np.float64)

    def _along(self, dimensions: int, dtype: type) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return mean and std as arrays that lie along the channels of a batch."""
        shape = (-1,) + (1,) * (dimensions - 2)
        return np.array(self.mean, dtype=dtype).reshape(shape), np.array(self.std, dtype=dtype).reshape(shape)


def _numbers(part: Any) -> bool:
    # type() and not isinstance(): JSON's true is a bool, and a bool is an int.
    return (
        isinstance(part, tuple)
        and len(part) > 0
        and all(type(each) in {int, float} and math.isfinite(each) for each in part)
    )
