"""Checks of a task's data: values, labels, classes, and what training and test data share."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from wash_fl.checks.finding import Finding
from wash_fl.checks.look import Look
from wash_fl.checks.subject import Subject
from wash_fl.errors import DataError
from wash_fl.export.metadata import INPUT_TYPES
from wash_fl.export.normalization import Normalization
from wash_fl.export.pixels import refuse_other_pixels

LEAKED: Final = 0.01
"""Share of the test inputs that may be training inputs too: photographs are sometimes taken twice."""


def inputs(subject: Subject) -> Iterator[Finding]:
    """Refuse inputs that are not finite, not float32 or integers, or of several shapes."""
    for look in (*subject.learned, subject.train, subject.test):
        if look.other:
            raise DataError(f"{look.what}: {look.other}; give inputs of one shape and type.")
        if look.dtype not in INPUT_TYPES:
            raise DataError(
                f"the inputs of {look.what} are {look.dtype}, and must be {', '.join(INPUT_TYPES)}: convert "
                "them with .float(), or with .long() if they are the numbers of words."
            )
        if look.not_finite is not None:
            raise DataError(
                f"input {look.not_finite} of {look.what} holds NaN or infinity: leave such examples out, or "
                "fill in what is missing."
            )
    if subject.train.dtype != subject.test.dtype:
        raise DataError(
            f"the inputs of {subject.train.what} are {subject.train.dtype}, and those of test_data() "
            f"{subject.test.dtype}: give both in one type."
        )
    shape = " x ".join(map(str, subject.task.input_shape))
    yield Finding("inputs", "ok", f"{subject.train.dtype} of shape {shape}, finite")


def labels(subject: Subject) -> Iterator[Finding]:
    """Refuse labels that are no index into CLASSES."""
    count = len(subject.task.classes)
    for look in (*subject.members, subject.train, subject.test):
        low, high = int(look.labels.min()), int(look.labels.max())
        if low < 0 or high >= count:
            raise DataError(_out_of_range(look, low, high, count))
    for name, look in (("train data", subject.train), ("test data", subject.test)):
        fewest = np.bincount(look.labels, minlength=count).min()
        text = f"{look.size}, labels {look.labels.min()} to {look.labels.max()}, each class at least {fewest}"
        if not look.whole:
            text += " of those"
        yield Finding(name, "ok", text)
    if subject.members:
        sizes = [each.total for each in subject.members]
        text = f"{len(sizes)} members, {min(sizes):,} to {max(sizes):,} examples each"
        yield Finding("member data", "ok", text)


def _out_of_range(look: Look, low: int, high: int, count: int) -> str:
    # The first in the data set, not the first that was looked at.
    wrong = (look.labels < 0) | (look.labels >= count)
    row, label = min(zip(np.array(look.rows)[wrong].tolist(), look.labels[wrong].tolist(), strict=True))
    text = (
        f"the labels of {look.what} run from {low} to {high} (example {row} has {label}), and with {count} "
        f"CLASSES they must be 0 to {count - 1}"
    )
    if (low, high) == (1, count):
        return f"{text}: they are counted from 1, so subtract 1."
    if low == -100:
        return f"{text}: leave out the examples of label -100: a loss may ignore them, an accuracy does not."
    return f"{text}: use class indices, or name the classes that are missing."


def every_class(subject: Subject) -> Iterator[Finding]:
    """Warn of a class that nobody can learn, or that no figure judges."""
    classes = subject.task.classes
    for kind, looks in (("training", subject.learned), ("test", [subject.test])):
        if not all(each.whole for each in looks):
            continue
        there = set(np.concatenate([each.labels for each in looks]).tolist())
        absent = [name for label, name in enumerate(classes) if label not in there]
        if absent:
            some = ", ".join(map(repr, absent[:5])) + (", ..." if len(absent) > 5 else "")
            verdict = "nobody learns them" if kind == "training" else "no figure says how well they are told"
            yield Finding(
                f"classes of the {kind} data",
                "warning",
                f"no example of {some}: {verdict}",
                "add examples, or leave such classes out of CLASSES",
            )


def leak(subject: Subject) -> Iterator[Finding]:
    """Warn of test inputs that are training inputs, too."""
    learned = {each for look in subject.learned for each in look.hashes}
    hashes = subject.test.hashes
    overlap = sum(each in learned for each in hashes)
    text = (
        f"{overlap:,} of {len(hashes):,} test inputs ({overlap / len(hashes):.1%}) are training inputs, too"
    )
    if overlap > LEAKED * len(hashes):
        yield Finding(
            "train and test data",
            "warning",
            f"{text}: the test accuracy will be too high",
            "split the data once, with a generator of a fixed seed",
        )
    else:
        yield Finding("train and test data", "ok", text)


def pixels(subject: Subject) -> Iterator[Finding]:
    """Refuse a NORMALIZATION that the export would refuse when all the training is done."""
    raw = subject.task.normalization
    if raw is not None:
        refuse_other_pixels(Normalization(mean=raw[0], std=raw[1]), subject.inputs.numpy())
        yield Finding("NORMALIZATION", "ok", f"fits the first {len(subject.inputs)} test inputs")
