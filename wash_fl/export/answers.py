"""A model's answers to many files: one unreadable file does not keep the others from theirs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from wash_fl.errors import ExportError
from wash_fl.export.inference import Predictor
from wash_fl.export.inputs import Examples, read_examples


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one example.

    Parameters
    ----------
    place : dict
        Where in its file it is; see :class:`wash_fl.export.inputs.Examples`.
    label : str
        The name of the likeliest class.
    probability : float
        The model's for that class.
    """

    place: dict[str, Any]
    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class FileAnswers:
    """What became of one file.

    Parameters
    ----------
    file : pathlib.Path
    answers : tuple of Answer
        In the file's order; none if it was refused.
    left_over : int
        Rows at the end of a table that are in no window.
    refused : str
        Why it has no answers; empty if it has.
    warnings : tuple of str
        What is odd about its values.
    """

    file: Path
    answers: tuple[Answer, ...] = ()
    left_over: int = 0
    refused: str = ""
    warnings: tuple[str, ...] = ()


def answer_files(
    predictor: Predictor,
    files: Iterable[Path],
    *,
    batch_size: int = 64,
    resize: bool = False,
    stride: int | None = None,
) -> Iterator[FileAnswers]:
    """Answer files one after another, in their order.

    Parameters
    ----------
    predictor : Predictor
    files : iterable of pathlib.Path
        Files, no folders; see :func:`wash_fl.export.inputs.find_files`.
    batch_size : int
        Examples given to the model at a time, and about as many as are in memory, where files are small.
    resize, stride
        As :func:`wash_fl.export.inputs.read_examples` takes them.

    Yields
    ------
    FileAnswers
        One for each file.
    """
    read: list[Examples | FileAnswers] = []
    waiting = 0
    for file in files:
        try:
            examples = read_examples(file, predictor.card, resize=resize, stride=stride)
            read.append(examples)
            waiting += len(examples.inputs)
        except ExportError as error:
            read.append(FileAnswers(file=file, refused=str(error)))
        if waiting >= batch_size:
            yield from _answer(predictor, read, batch_size)
            read, waiting = [], 0
    yield from _answer(predictor, read, batch_size)


def _answer(
    predictor: Predictor, read: list[Examples | FileAnswers], batch_size: int
) -> Iterator[FileAnswers]:
    inputs = [each.inputs for each in read if isinstance(each, Examples)]
    in_order: Iterator[tuple[str, float]] = iter(())
    if inputs:
        predictions = predictor.predict(np.concatenate(inputs), batch_size=batch_size)
        in_order = zip(predictions.labels, predictions.probabilities.max(axis=1).tolist(), strict=True)
    for each in read:
        if isinstance(each, FileAnswers):
            yield each
            continue
        own = islice(in_order, len(each.places))
        answers = tuple(
            Answer(place=place, label=label, probability=probability)
            for place, (label, probability) in zip(each.places, own, strict=True)
        )
        yield FileAnswers(file=each.file, answers=answers, left_over=each.left_over, warnings=each.warnings)
