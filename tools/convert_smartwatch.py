"""Make the data of the task `smartwatch` from seglearn's watch_dataset.npy, which is a pickle.

    python tools/convert_smartwatch.py SEGLEARN/data/watch_dataset.npy wash_fl/tasks/data/smartwatch.json

This is the only place that reads a pickle, and nothing in it but arrays is built.
"""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wash_fl.tasks import bundled

CHANNELS = ["ax", "ay", "az", "wx", "wy", "wz"]
EXERCISES = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]

# A repetition takes about a second or more, so half the rate still shows it whole. Rounding to a hundredth
# adds an error of 0.003, below 1 % of any channel's standard deviation; the largest value is 1813 of int16.
SOURCE_RATE, RATE = 50, 25
STEPS_PER_UNIT = 100

ABOUT = "6-axis inertial data of shoulder exercises, from seglearn 1.2.5 (BSD-3-Clause): see smartwatch.md."

_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    """Builds lists, dicts and arrays; whatever else a pickle can call is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ValueError(f"it is not only arrays: it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read(path: Path) -> dict[str, Any]:
    """Return the dictionary in seglearn's file.

    Raises
    ------
    ValueError
        If it is no ``.npy`` file of one pickled dictionary of arrays, lists, numbers and strings.
    """
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if shape != () or dtype != np.dtype(object):
            raise ValueError(f"it holds {dtype} of shape {shape}, not one pickled dictionary")
        try:
            array = _ArraysOnly(file).load()
        # What the pickle module says it may raise.
        except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError) as error:
            raise ValueError(f"its pickle is damaged: {error}") from error
    content = array.item() if isinstance(array, np.ndarray) and array.shape == () else array
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not a dictionary")
    return content


def convert(data: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Check the series, halve their rate, and round them; in the order of person, exercise and side.

    Parameters
    ----------
    data : dict
        As ``seglearn.datasets.load_watch`` returns it: 50 Hz, g and rad/s.

    Returns
    -------
    dict of ndarray
        ``samples``, int16 of shape (all samples, 6), in hundredths of g and of rad/s at 25 Hz, one series
        after the other; and for each series ``length``, ``person``, ``exercise`` (index), ``right`` (0 or 1).

    Raises
    ------
    ValueError
        If anything is not as described.
    """
    for key, names in (("X_labels", CHANNELS), ("y_labels", EXERCISES)):
        if list(data.get(key, ())) != names:
            raise ValueError(f"{key} is {data.get(key)!r}, not {names}")
    series = data.get("X")
    if not isinstance(series, list) or not series:
        raise ValueError("X is not a list of series")
    factor = SOURCE_RATE // RATE
    for number, each in enumerate(series):
        if not isinstance(each, np.ndarray) or each.ndim != 2 or each.shape[1] != len(CHANNELS):
            raise ValueError(f"series {number} has shape {np.shape(each)}, not (samples, {len(CHANNELS)})")
        if each.dtype != np.float64 or len(each) < factor or not np.isfinite(each).all():
            raise ValueError(f"series {number} is not {factor} or more finite float64 samples")
        if np.abs(each).max() * STEPS_PER_UNIT >= np.iinfo(np.int16).max:
            raise ValueError(f"series {number} has values that int16 does not hold")
    person = _integers(data, "subject", len(series), 1, 127)
    exercise = _integers(data, "y", len(series), 0, len(EXERCISES) - 1)
    right = _integers(data, "side", len(series), 0, 1)
    for one in np.unique(person):
        if set(exercise[person == one].tolist()) != set(range(len(EXERCISES))):
            raise ValueError(f"person {one} has not done all {len(EXERCISES)} exercises")
    order = np.lexsort((right, exercise, person))
    # The mean of each pair is also the low-pass that must come before a lower rate.
    halved = [
        series[i][: len(series[i]) // factor * factor].reshape(-1, factor, len(CHANNELS)).mean(axis=1)
        for i in order
    ]
    return {
        "samples": np.rint(np.concatenate(halved) * STEPS_PER_UNIT).astype("<i2"),
        "length": np.array([len(each) for each in halved], dtype="<i4"),
        "person": person[order],
        "exercise": exercise[order],
        "right": right[order],
    }


def write(arrays: dict[str, Any], path: Path) -> None:
    """Write the arrays as the file that the task reads."""
    bundled.write(path, ABOUT, arrays, hertz=RATE, steps_per_unit=STEPS_PER_UNIT)


def _integers(data: dict[str, Any], key: str, count: int, low: int, high: int) -> NDArray[np.int8]:
    given = np.asarray(data.get(key))
    if given.shape != (count,) or given.dtype.kind not in "iuf" or not np.array_equal(given, np.rint(given)):
        raise ValueError(f"{key} is not one whole number for each of {count} series")
    if given.min() < low or given.max() > high:
        raise ValueError(f"{key} is not {low} to {high}")
    return given.astype(np.int8)


def main() -> None:
    """Convert the file named first into the file named second."""
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/convert_smartwatch.py WATCH_DATASET.npy SMARTWATCH.json")
    source, target = map(Path, sys.argv[1:])
    try:
        write(convert(read(source)), target)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot convert {source}: {error}.")


if __name__ == "__main__":
    main()
