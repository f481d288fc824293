"""How long files take to answer, measured in turn: whatever slows the machine down meets all of them."""

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.export.inference import Predictor
from wash_fl.export.inputs import Inputs

BATCHES: Final = (1, 32)
SECONDS: Final = 5.0
"""How long two files are compared at a batch size, about."""

_MOST, _FEWEST, _WARM_UP = 50, 5, 5


def take_turns(
    predictors: Sequence[Predictor], inputs: Sequence[Inputs], repeats: int, warm_up: int
) -> NDArray[np.float64]:
    """Return seconds, of shape (predictors, repeats); the one that is first changes from turn to turn.

    Parameters
    ----------
    predictors : sequence of Predictor
    inputs : sequence of ndarray
        A batch for each of them.
    repeats, warm_up : int
        Turns that are measured, and turns before that which are not.
    """
    count = len(predictors)
    seconds = np.empty((count, warm_up + repeats))
    for turn in range(warm_up + repeats):
        for place in range(count):
            index = (turn + place) % count
            began = time.perf_counter()
            predictors[index].logits(inputs[index])
            seconds[index, turn] = time.perf_counter() - began
    return seconds[:, warm_up:]


def ratio(own: NDArray[np.float64], first: NDArray[np.float64]) -> dict[str, float]:
    """Return ``ratio``, the median over the turns of one file's time over another's, and its quartiles."""
    low, middle, high = np.percentile(own / first, (25, 50, 75))
    return {"ratio": float(middle), "ratio_p25": float(low), "ratio_p75": float(high)}


def compare(float32: Predictor, int8: Predictor, inputs: Inputs) -> dict[str, dict[str, float]]:
    """Return for each batch size, ``"1"`` and ``"32"``, what two files take, and the second over the first.

    It is a look: at most 50 turns, fewer of a large model. ``wash-fl bench inference`` takes more.

    Parameters
    ----------
    float32, int8 : Predictor
    inputs : ndarray of ``card.input_dtype``, shape (n, *input_shape)
        Real ones, repeated as often as a batch needs.

    Returns
    -------
    dict
        Of ``float32_ms``, ``int8_ms`` (medians), ``ratio``, ``ratio_p25`` and ``ratio_p75``.
    """
    figures = {}
    for size in BATCHES:
        batch = np.resize(inputs, (size, *float32.card.input_shape))
        pair = [float32, int8], [batch, batch]
        turn = float(take_turns(*pair, repeats=1, warm_up=1).sum())
        repeats = int(np.clip(SECONDS / max(turn, 1e-9), _FEWEST, _MOST))
        first, second = take_turns(*pair, repeats=repeats, warm_up=min(_WARM_UP, repeats))
        figures[str(size)] = {
            "float32_ms": float(1000 * np.median(first)),
            "int8_ms": float(1000 * np.median(second)),
            **ratio(second, first),
        }
    return figures
