"""Whether inputs can be what a model is given: refused where the card knows, a warning where it does not."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.images import is_picture
from wash_fl.export.metadata import ModelCard
from wash_fl.export.pixels import SLACK, channel_outside
from wash_fl.export.text import short

WIDER: Final = 1.0
"""How far beyond the range of the inputs it was checked on a model's input may be, in widths of that range.

The range then is three times as wide. A few hundred test examples miss the strongest signal by less; another
unit misses by more: m/s2 for g is 9.8 times, degrees for radians 57, a byte for a pixel in 0..1 is 255 times.
"""

FLAT: Final = 0.01
"""Pictures that keep to so small a part of the range are likely in another unit, or black."""


def refuse_impossible_pixels(inputs: NDArray[Any], card: ModelCard, what: str, slack: float = SLACK) -> None:
    """Refuse pictures outside of what the card's normalization can make of pixels in 0..1.

    Parameters
    ----------
    inputs : ndarray, shape (n, *card.input_shape)
        As the model is given them.
    card : ModelCard
        Without a normalization, of raw inputs, or where inputs are no pictures, nothing is known of them.
    what : str
        The beginning of the message.
    slack : float
        How far a pixel may be outside of 0..1.

    Raises
    ------
    ExportError
        If they are.
    """
    normalization = card.normalization
    if normalization is None or card.raw_inputs or not is_picture(card.input_shape):
        return
    outside = channel_outside(normalization, inputs, slack)
    if outside is None:
        return
    channel = outside[0]
    values = inputs[:, channel]
    mean, std = (part[min(channel, len(part) - 1)] for part in (normalization.mean, normalization.std))
    how = f" ({short(card.preprocessing)})" if card.preprocessing else ""
    raise ExportError(
        f"{what} run from {values.min():.4g} to {values.max():.4g} in channel {channel}, and what the model "
        f"is given from {(0 - mean) / std:.4g} to {(1 - mean) / std:.4g}: prepare them as its card "
        f"says{how}, give raw pixels as an image file, or export the model with --raw-inputs."
    )


def doubts(inputs: NDArray[Any], card: ModelCard) -> tuple[str, ...]:
    """Return what is odd about inputs in the light of those that the file was checked on, each one sentence.

    Parameters
    ----------
    inputs : ndarray of ``card.input_dtype``, shape (n, *card.input_shape)
    card : ModelCard
        Without ``input_range`` nothing is odd, nor where it is known what inputs can be.
    """
    if card.input_range is None or (card.normalization is not None and is_picture(card.input_shape)):
        return ()
    prepared = card.normalization.apply(inputs) if card.normalization and card.raw_inputs else inputs
    least, most = card.input_range
    # A range of one value has no width to go by.
    margin = WIDER * (most - least) or 1.0
    low = least - margin
    if prepared.dtype.kind in "iu" and least >= 0:
        low = 0  # the numbers of tokens: what looks them up counts -1 from the end
    outside = int(np.count_nonzero((prepared < low) | (prepared > most + margin)))
    runs = f"run from {prepared.min():.4g} to {prepared.max():.4g}"
    reference = f"the model was checked on {least:.4g} to {most:.4g}"
    if card.normalization is not None:
        reference += ", all after the card's normalization"
    if outside:
        share = f"{outside} of {prepared.size} values are far outside"
        return (
            f"{share}: they {runs}, and {reference}. Are they prepared as its card says, and in its units?",
        )
    width = float(prepared.max()) - float(prepared.min())
    if is_picture(card.input_shape) and width < FLAT * (most - least):
        return (f"the pixels hardly differ: they {runs}, and {reference}. Were these alone divided by 255?",)
    return ()
