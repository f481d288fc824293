"""Shoulder exercises told apart by a smartwatch (Burns et al., 2018): seven classes, one client per person.

Ten people did sets of 20 repetitions of each exercise with either arm, a watch at the wrist: 140 series of a
3-axis accelerometer (g) and a 3-axis gyroscope (rad/s). Nobody is both trained and tested on. Where the data
is from is in ``data/smartwatch.md``.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import TensorDataset

from wash_fl.errors import ConfigError
from wash_fl.tasks import bundled
from wash_fl.tasks.task import Examples

CLASSES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "row",
)
HERTZ, SECONDS = 25, 5
WINDOW = HERTZ * SECONDS
INPUT_SHAPE = (6, WINDOW)
# About the root mean square of each sensor over all people, and never estimated anew: a device then needs
# nothing but its own readings.
ACCELERATION, ROTATION = 0.7, 1.65
COLUMNS = ("ax", "ay", "az", "wx", "wy", "wz")
PREPROCESSING = (
    f"{SECONDS} s at {HERTZ} Hz of acceleration x, y, z in g, divided by {ACCELERATION:g}, and of rotation "
    f"x, y, z in rad/s, divided by {ROTATION:g}; shape ({INPUT_SHAPE[0]}, {INPUT_SHAPE[1]})."
)
NORMALIZATION = (0.0,) * 6, (ACCELERATION,) * 3 + (ROTATION,) * 3

# People are numbers in the data. How well a model does depends on who is left out: see leaving_out.
PEOPLE = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
TEST_PEOPLE = (9, 10)

DATA_FILE = Path(__file__).with_name("data") / "smartwatch.json"


def model() -> nn.Module:
    """Return a new CNN over time: three convolutions with BatchNorm, about 22,000 parameters."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=_conv(INPUT_SHAPE[0], 24),
            bn1=nn.BatchNorm1d(24),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool1d(2),
            conv2=_conv(24, 48),
            bn2=nn.BatchNorm1d(48),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool1d(2),
            conv3=_conv(48, 64),
            bn3=nn.BatchNorm1d(64),
            relu3=nn.ReLU(),
            pool3=nn.AdaptiveAvgPool1d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(64, len(CLASSES)),
        )
    )


def leaving_out(
    *people: int,
) -> tuple[Callable[[], Examples], Callable[[], Examples], Callable[[int, int], Examples]]:
    """Return the task's ``train_data``, ``test_data`` and ``member_data`` when these people are tested on.

    Training windows are each half over the one before, test windows end to end; float32 inputs of shape
    (6, 125), int64 classes. With as many members as people who are left, a member has one person's windows;
    with fewer, the k-th person, from 0, is with member ``k % members``. The three functions raise
    :class:`ConfigError` if there are more members than people, and :class:`DataError` if the data file is
    missing or damaged.

    Parameters
    ----------
    people : int
        Their numbers, 1 to 10.

    Raises
    ------
    ConfigError
        If there is nobody of such a number, or nobody is left to train with.

    Examples
    --------
    A task of one's own that is tested on others than ``smartwatch`` is::

        from wash_fl.tasks.smartwatch import CLASSES, COLUMNS, INPUT_SHAPE, NORMALIZATION, leaving_out, model

        train_data, test_data, member_data = leaving_out(1, 2)
    """
    rest = tuple(each for each in PEOPLE if each not in people)
    if not people or not rest or not set(PEOPLE).issuperset(people):
        raise ConfigError(f"people {sorted(people)} cannot be left out: use some, but not all, of {PEOPLE}.")

    def train_data() -> Examples:
        return examples_of(rest, stride=WINDOW // 2)

    def test_data() -> Examples:
        return examples_of(people, stride=WINDOW)

    def member_data(member: int, members: int) -> Examples:
        if members > len(rest):
            raise ConfigError(
                f"members = {members} is not allowed with the task 'smartwatch': each has at least one "
                f"person's data, and there are {len(rest)} people to train with. Use {len(rest)} or fewer."
            )
        return examples_of(rest[member::members], stride=WINDOW // 2)

    return train_data, test_data, member_data


def examples_of(people: Collection[int], *, stride: int) -> TensorDataset:
    """Return the windows of some people, by person, exercise, arm and time.

    Parameters
    ----------
    people : collection of int
        Their numbers, 1 to 10.
    stride : int
        Samples from the start of a window to that of the next: ``WINDOW`` for windows end to end. A rest
        shorter than a window, at the end of a series, is left out.

    Returns
    -------
    TensorDataset
        float32 inputs of shape (6, 125), int64 classes.

    Raises
    ------
    ConfigError
        If there is nobody of such a number.
    DataError
        If the data file is missing or damaged.
    """
    series = read_series(DATA_FILE)
    everyone = {person for person, _, _ in series}
    if not people or not everyone.issuperset(people):
        raise ConfigError(f"people {sorted(people)} are not all there: use some of {sorted(everyone)}.")
    windows, classes = [], []
    for person, exercise, samples in series:
        if person in people:
            views = np.lib.stride_tricks.sliding_window_view(samples, WINDOW, axis=0)[::stride]
            windows.append(views)
            classes.extend([exercise] * len(views))
    inputs = np.concatenate(windows)
    inputs[:, :3] /= np.float32(ACCELERATION)
    inputs[:, 3:] /= np.float32(ROTATION)
    return TensorDataset(torch.from_numpy(inputs), torch.tensor(classes))


def read_series(path: Path) -> list[tuple[int, int, NDArray[np.float32]]]:
    """Read the data file, which ``tools/convert_smartwatch.py`` has made. Nothing is unpickled.

    Parameters
    ----------
    path : Path
        As :func:`wash_fl.tasks.bundled.write` leaves it.

    Returns
    -------
    list of (int, int, ndarray of float32, shape (time, 6))
        For each series the person's number, the class index, and the samples in g and rad/s, 25 a second.

    Raises
    ------
    DataError
        If the file is missing, damaged, or of another form; the message names it.
    """
    names = ("samples", "length", "person", "exercise")
    (samples, length, person, exercise), values = bundled.read(path, *names)
    steps = values.get("steps_per_unit")
    fault = _fault(values.get("hertz"), steps, samples, (length, person, exercise))
    if fault is not None:
        raise bundled.damaged(path, fault)
    units = samples.astype(np.float32) / np.float32(steps)
    parts = np.split(units, np.cumsum(length)[:-1])
    return list(zip(person.tolist(), exercise.tolist(), parts, strict=True))


def _fault(hertz: Any, steps: Any, samples: NDArray[Any], columns: tuple[NDArray[Any], ...]) -> str | None:
    length, person, exercise = columns
    if hertz != HERTZ or not isinstance(steps, int) or steps < 1:
        return f"samples of {hertz} Hz and {steps} steps per unit"
    if samples.dtype != np.int16 or samples.shape[1:] != INPUT_SHAPE[:1]:
        return f"samples of {samples.dtype} and shape {samples.shape}"
    if any(each.dtype.kind != "i" or each.shape != (length.size,) for each in columns):
        return "not one length, person and exercise for each series"
    if length.min(initial=WINDOW) < WINDOW or int(length.sum()) != len(samples):
        return "series shorter than a window, or of other lengths than it says"
    if not set(exercise.tolist()) <= set(range(len(CLASSES))):
        return "exercises that are none of CLASSES"
    if set(person.tolist()) != set(PEOPLE):
        return "other people"
    return None


def _conv(channels_in: int, channels_out: int) -> nn.Conv1d:
    return nn.Conv1d(channels_in, channels_out, 5, padding=2, bias=False)


train_data, test_data, member_data = leaving_out(*TEST_PEOPLE)
