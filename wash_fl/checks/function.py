"""Checks that a task is a function: another process makes the same of it."""

from collections.abc import Iterator, Mapping

import numpy as np

from wash_fl.checks.finding import Finding
from wash_fl.checks.fingerprint import CHUNK, DataPrint, loss_of, names_of, outside_of, weights_of
from wash_fl.checks.look import Look
from wash_fl.checks.subject import Subject
from wash_fl.errors import ConfigError, DataError
from wash_fl.export.reference import ROUNDING

SPLIT = "draw with a generator of a fixed seed, torch.Generator().manual_seed(0)"
ORDER = "sort what comes from a set, a dict's keys or a folder"


def names(subject: Subject) -> Iterator[Finding]:
    """Refuse declarations that another process reads otherwise."""
    there = subject.twin.names
    for name, here in names_of(subject.task).items():
        if here != there[name]:
            raise ConfigError(
                f"{name} of the task {subject.task.name!r} is {_short(here)} here, and {_short(there[name])} "
                f"in another process: {ORDER}."
            )
    yield Finding("declarations", "ok", "the same in another process")


def train_data(subject: Subject) -> Iterator[Finding]:
    """Refuse training data that is other data in another process."""
    yield from _data("train data again", subject.train, subject.twin.train)


def test_data(subject: Subject) -> Iterator[Finding]:
    """Refuse test data that is other data in another process."""
    yield from _data("test data again", subject.test, subject.twin.test)


def member_data(subject: Subject) -> Iterator[Finding]:
    """Refuse a member's data that is other data in another process."""
    for here, there in zip(subject.members, subject.twin.members, strict=True):
        *warnings, last = _data("member data again", here, there)
        yield from warnings
    if subject.members:
        yield last


def weights(subject: Subject) -> Iterator[Finding]:
    """Refuse a model whose weights are not a function of torch's seed."""
    here, there = weights_of(subject.model), subject.twin.weights
    for name in _differing(here, there):
        raise DataError(
            f"the initial {name!r} is another in another process, from the same seed: draw weights with "
            "torch's own generator, and not with NumPy's or Python's."
        )
    yield Finding("initial weights again", "ok", f"{len(here)} tensors, the same in another process")


def outside(subject: Subject) -> Iterator[Finding]:
    """Refuse a model with other tensors outside its state dict in another process."""
    subject.answers  # noqa: B018 (some tensors are there only once the model has answered)
    here, there = outside_of(subject.model), subject.twin.outside
    for name in _differing(here, there):
        raise DataError(
            f"{name!r} of the model is no part of its state dict and another in every process, so that no "
            "two would answer alike: register it as a buffer that is kept, or draw it with a fixed seed."
        )
    yield Finding("outside the state dict", "ok", f"{len(here)} tensors, the same in another process")


def answers(subject: Subject) -> Iterator[Finding]:
    """Refuse a model that answers otherwise in another process, though its weights are the same."""
    here, there = subject.answers, np.array(subject.twin.answers)
    if here.shape != there.shape or np.abs(here - there).max() > ROUNDING * max(1e-6, np.abs(here).max()):
        raise DataError(
            "a model with the same weights answers otherwise in another process: let forward() depend on "
            "nothing but its input and the state dict, no random number, time or order of a set."
        )
    yield Finding("answers again", "ok", f"{len(here)} test inputs, the same in another process")


def loss(subject: Subject) -> Iterator[Finding]:
    """Refuse a loss that is another in another process, of the same answers."""
    here = loss_of(subject.task, subject.targets[: len(subject.answers)])
    there = subject.twin.loss
    if not np.isclose(here, there, rtol=ROUNDING, atol=1e-6):
        raise DataError(
            f"loss(outputs, targets) is {here:.6g} here and {there:.6g} in another process, of the same "
            "outputs: write down what it multiplies and adds, or draw it with a generator of a fixed seed."
        )
    yield Finding("loss again", "ok", f"{here:.4g} of made-up outputs, the same in another process")


def _data(name: str, here: Look, there: DataPrint) -> Iterator[Finding]:
    if here.total != there.length:
        raise DataError(
            f"{here.what} has {here.total:,} examples here and {there.length:,} in another process: {SPLIT}, "
            f"and {ORDER}."
        )
    own = DataPrint.of(here)
    for part, mine, theirs in (("labels", own.labels, there.labels), ("inputs", own.inputs, there.inputs)):
        if part == "inputs" and here.unseeded:
            yield Finding(
                name,
                "warning",
                "its inputs are drawn anew at each reading, not by torch's generator: no run will repeat",
                "draw random transforms with torch's generator, which is set at every step",
            )
            return
        # The last hash of a shorter look is of fewer examples.
        common = _common(mine, theirs, here)
        if mine[:common] != theirs[:common]:
            raise DataError(
                f"{here.what} has other {part} in another process: {SPLIT}, and {ORDER}; let nothing depend "
                "on the time."
            )
    count = min(_common(own.labels, there.labels, here) * CHUNK, here.total)
    if not count:
        yield Finding(
            name,
            "warning",
            f"none of its {here.total:,} examples could be compared with another process, for it is read too "
            "slowly: whether a run repeats is not known",
            "make reading an example faster, or see to it yourself that two processes read the same",
        )
        return
    yield Finding(name, "ok", f"{count:,} of {here.total:,} examples, the same in another process")


def _common(mine: list[str], theirs: list[str], here: Look) -> int:
    """Return how many hashes of two looks are of the same examples."""
    if len(mine) == len(theirs) == -(-here.total // CHUNK):
        return len(mine)
    return max(0, min(len(mine), len(theirs)) - 1)


def _differing(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    return [name for name in {**here, **there} if here.get(name) != there.get(name)]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
