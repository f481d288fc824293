"""Whether an int8 file answers as well as its float32 file: in all, class by class, and answer by answer."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

TOLERANCE: Final = 0.5
"""Percentage points of accuracy that may be lost."""

ANSWERS: Final = 10
"""Percentage points of answers that may change for each point of the tolerance, taken as 0.5 at least."""

CHANCE: Final = 0.05
"""How often a class is refused at most, of all classes together, where what is lost is spread by chance."""


@dataclass(frozen=True, kw_only=True)
class ClassRecall:
    """How many examples of a class are recognized.

    Parameters
    ----------
    name : str
        Of the class.
    examples : int
        The test examples that are of it.
    float32_right, int8_right : int
        How many of them each file recognizes.
    may_lose : int
        How many the int8 file may recognize less.
    """

    name: str
    examples: int
    float32_right: int
    int8_right: int
    may_lose: int

    @property
    def float32_recall(self) -> float:
        """The fraction that the float32 file recognizes."""
        return self.float32_right / self.examples

    @property
    def int8_recall(self) -> float:
        """The fraction that the int8 file recognizes."""
        return self.int8_right / self.examples

    @property
    def loses(self) -> int:
        """How many the int8 file recognizes less; below 0 if more."""
        return self.float32_right - self.int8_right

    @property
    def fails(self) -> bool:
        """Whether more are lost than may be."""
        return self.loses > self.may_lose


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What int8 costs, and what it may.

    Parameters
    ----------
    tolerance : float
        Percentage points of accuracy that may be lost.
    examples : int
        How many were answered.
    float32_accuracy, int8_accuracy : float
        The fraction that each file answers rightly.
    changed, may_change : int
        How many top-1 answers are others, and how many may be.
    not_finite : int
        How many answers of the int8 file hold NaN or infinity.
    classes : tuple of ClassRecall
        In the order of the card's, without those that have no test example.
    unseen : tuple of str
        The classes that have none: nothing is known about them.
    """

    tolerance: float
    examples: int
    float32_accuracy: float
    int8_accuracy: float
    changed: int
    may_change: int
    not_finite: int
    classes: tuple[ClassRecall, ...]
    unseen: tuple[str, ...]

    @property
    def points_lost(self) -> float:
        """Percentage points of accuracy that are lost; below 0 if some are gained."""
        return 100 * (self.float32_accuracy - self.int8_accuracy)

    @property
    def agreement(self) -> float:
        """The fraction of equal top-1 answers."""
        return 1 - self.changed / self.examples

    @property
    def worst(self) -> ClassRecall:
        """The class whose recall falls most; one that fails, if any does."""
        return max(self.classes, key=lambda each: (each.fails, each.float32_recall - each.int8_recall))

    @property
    def failures(self) -> tuple[str, ...]:
        """What is not accepted, each as a part of a sentence; none if the file answers as well."""
        return tuple(self._failures())

    def _failures(self) -> Iterator[str]:
        if self.not_finite:
            yield f"{self.not_finite} of {self.examples} answers are not finite"
        if self.points_lost > self.tolerance:
            yield (
                f"int8 costs at least {self.points_lost:.2f} points of accuracy ({self.float32_accuracy:.2%} "
                f"to {self.int8_accuracy:.2%} on {self.examples} examples), above the tolerance of "
                f"{self.tolerance:g}"
            )
        if self.worst.fails:
            worst = self.worst
            yield (
                f"the recall of the class {worst.name!r} falls from {worst.float32_recall:.2%} to "
                f"{worst.int8_recall:.2%} ({worst.loses} of its {worst.examples} examples are lost, and "
                f"{worst.may_lose} may be)"
            )
        if self.changed > self.may_change:
            yield (
                f"{self.changed} of {self.examples} answers are others ({self.agreement:.2%} are equal), and "
                f"{self.may_change} may be"
            )


def judge(
    logits: NDArray[Any],
    reference: NDArray[Any],
    targets: NDArray[Any],
    classes: Sequence[str],
    tolerance: float,
) -> Judgement:
    """Compare the answers of an int8 file with those of the float32 file that it was made from.

    It fails if it answers with NaN or infinity; if it loses more accuracy than the tolerance; if a class
    loses more than chance explains; or if too many top-1 answers are others, right or wrong.

    Chance explains that a class loses one example, or as many as such a class loses once in twenty files
    (:data:`CHANCE`, divided by the number of classes) if each example is lost with the same probability: the
    tolerance, or the fraction that the file has lost of all examples, if that is larger.

    Parameters
    ----------
    logits, reference : ndarray of float, shape (n, classes)
        The answers of the int8 file, and of the float32 file, which are finite.
    targets : ndarray of integers, shape (n,)
        Class indices.
    classes : sequence of str
        Their names.
    tolerance : float
        Percentage points, 0 to 100.
    """
    before, after = reference.argmax(axis=1), logits.argmax(axis=1)
    finite = np.isfinite(logits).all(axis=1)
    was_right, is_right = before == targets, (after == targets) & finite
    changed = int(np.sum((before != after) | ~finite))
    examples = np.bincount(targets, minlength=len(classes))
    rate = max(tolerance / 100, float(np.mean(was_right & ~is_right)))
    chance = CHANCE / np.count_nonzero(examples)
    return Judgement(
        tolerance=tolerance,
        examples=len(targets),
        float32_accuracy=float(was_right.mean()),
        int8_accuracy=float(is_right.mean()),
        changed=changed,
        may_change=max(1, math.floor(len(targets) * min(1, ANSWERS * max(tolerance, TOLERANCE) / 100))),
        not_finite=int(np.sum(~finite)),
        classes=tuple(
            ClassRecall(
                name=name,
                examples=int(examples[index]),
                float32_right=int(np.sum(was_right & (targets == index))),
                int8_right=int(np.sum(is_right & (targets == index))),
                may_lose=max(1, most_by_chance(int(examples[index]), rate, chance)),
            )
            for index, name in enumerate(classes)
            if examples[index]
        ),
        unseen=tuple(name for index, name in enumerate(classes) if not examples[index]),
    )


def most_by_chance(examples: int, rate: float, chance: float) -> int:
    """Return the least number that is exceeded with a probability below ``chance``.

    Parameters
    ----------
    examples : int
        How many are drawn.
    rate : float
        The probability with which each one counts.
    chance : float
        Above 0.
    """
    if rate <= 0 or rate >= 1:
        return examples if rate >= 1 else 0
    counts = np.arange(examples)
    # Of the binomial distribution, by the ratio of each term to the one before it: in logarithms, for with
    # many examples the first is too small for a float.
    steps = np.log((examples - counts) / (counts + 1) * (rate / (1 - rate)))
    terms = np.exp(examples * math.log1p(-rate) + np.concatenate([[0], np.cumsum(steps)]))
    exceeded = np.cumsum(terms[::-1])[::-1] - terms
    return int(np.argmax(exceeded < chance))
