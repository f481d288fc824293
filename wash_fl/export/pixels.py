"""Whether examples are what a card's normalization makes of pictures: a device will trust the card."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.images import is_picture
from wash_fl.export.normalization import Normalization

SLACK: Final = 0.1 / 255
"""How far a pixel may be from where it must be: mean and std are often given with few digits."""

ENOUGH: Final = 10_000
"""Values of a channel that tell by how few of them differ whether they are from bytes."""

COARSE: Final = 64
"""As few different values may be of pictures with fewer levels than a byte has, and tell nothing."""

REMEDY: Final = (
    "NORMALIZATION must be the mean and std with which the task prepares pixels in 0..1 (a byte divided by "
    "255), or left out where inputs are no pictures."
)


def refuse_other_pixels(normalization: Normalization, inputs: NDArray[Any]) -> None:
    """Return if the inputs can be pictures that were prepared by the normalization, or are no pictures.

    A wrong mean, std or scale shows in three ways: pixels outside 0..1, pixels between two bytes, or inputs
    that are 0 to 1 as if they were not prepared at all. Of pictures whose pixels are no bytes, because they
    were scaled to another size say, a wrong normalization may go unseen; and the order of colours does.

    Parameters
    ----------
    normalization : Normalization
    inputs : ndarray of float32, shape (n, *input_shape)
        As the model is given them.

    Raises
    ------
    ExportError
        If a channel is not what the normalization makes of pixels.
    """
    if not is_picture(inputs.shape[1:]):
        return
    outside = channel_outside(normalization, inputs, SLACK)
    if outside is not None:
        channel, least, most = outside
        raise ExportError(
            f"channel {channel} of the examples runs from {least:.4g} to {most:.4g} when the card's "
            f"normalization is undone, and pixels from 0 to 1: {REMEDY}"
        )
    pixels = normalization.undo(inputs)
    for channel in range(pixels.shape[1]):
        values, channel_pixels = inputs[:, channel], pixels[:, channel]
        which = f"channel {channel} of the examples"
        if values.min() == 0 and values.max() == 1 and np.abs(values - channel_pixels).max() > SLACK:
            raise ExportError(
                f"{which} runs from 0 to 1, as pixels that were not normalized, and the card says they were: "
                f"{REMEDY}"
            )
        levels = _levels(channel_pixels)
        off = np.abs(255 * levels - np.round(255 * levels)).max()
        if COARSE < len(levels) <= 256 and channel_pixels.size >= ENOUGH and off > 255 * SLACK:
            raise ExportError(
                f"{which} has {len(levels)} different values, as bytes have, but when the card's "
                f"normalization is undone they lie between bytes: {REMEDY}"
            )


def channel_outside(
    normalization: Normalization, inputs: NDArray[Any], slack: float
) -> tuple[int, float, float] | None:
    """Return the first channel of pictures that is outside 0..1 when the normalization is undone, if any.

    Parameters
    ----------
    normalization : Normalization
    inputs : ndarray of float32, shape (n, channels, height, width)
    slack : float
        How far outside is no matter.

    Returns
    -------
    channel : int
    least, most : float
        Of its pixels.
    """
    ends = np.stack([reduce(inputs, axis=(0, 2, 3)) for reduce in (np.min, np.max)])
    least, most = normalization.undo(ends)
    outside = np.flatnonzero((least < -slack) | (most > 1 + slack))
    if len(outside) == 0:
        return None
    first = int(outside[0])
    return first, float(least[first]), float(most[first])


def _levels(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the different values, sorted; those that only rounding tells apart are one."""
    values = np.unique(pixels)
    return values[np.diff(values, prepend=-np.inf) > 1e-5]
