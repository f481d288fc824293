"""One row of a comparison: a method, a seed and options in, figures out; the same in, the same out."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from wash_fl.config import RunConfig
from wash_fl.consensus.evaluate import accuracy, logits_of
from wash_fl.consensus.finish import Arrays, Evaluator
from wash_fl.consensus.soup import greedy_soup
from wash_fl.core.auto import with_choices
from wash_fl.lab.compare.cohort import Cohort
from wash_fl.lab.compare.held_out import hold_out
from wash_fl.lab.compare.line import Line, between
from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.post import Post
from wash_fl.lab.machine import machine
from wash_fl.member.threads import one_thread
from wash_fl.tasks.division import tensors_of
from wash_fl.tasks.task import load_task

LINE_EXAMPLES: Final = 1000
"""Test examples on which the loss between models is measured."""


@dataclass(frozen=True)
class Row:
    """What is to be trained.

    Attributes
    ----------
    method : str
        One of :data:`~wash_fl.lab.compare.methods.METHODS`.
    seed : int
        The run seed.
    options : dict of str to object
        The run's other options, by name.
    dropout : float
        Probability that a member is away in a round.
    """

    method: str
    seed: int
    options: Mapping[str, Any]
    dropout: float = 0.0

    @property
    def config(self) -> RunConfig:
        """All options of the run."""
        return METHODS[self.method].config({**self.options, "seed": self.seed})

    @property
    def training(self) -> Hashable:
        """What the members' weights follow from: rows of the same differ in their product alone."""
        return METHODS[self.method].make, self.config, self.dropout


def run_row(row: Row, progress: Callable[[int], None] = lambda number: None) -> dict[str, Any]:
    """Train and measure.

    Parameters
    ----------
    row : Row
        What.
    progress : callable
        Told of each round that is over.

    Returns
    -------
    dict
        ``accuracy`` on the test data: ``members`` (each), ``member`` (their mean), ``ensemble``,
        ``averaged``, ``recalibrated`` (BatchNorm re-estimated), ``soup`` (greedy, re-estimated too), and
        ``product``, that of the model the method is judged by; ``bytes`` of a member while it trains;
        ``distance`` of the members to their mean by round, to nine digits; ``lines`` between members 0 and 1
        and from member 0 to the mean, with the ``barrier``; ``soup_members``; ``sha256`` of the averaged
        model; ``seconds``; ``machine``: what trained it, for PyTorch rounds otherwise on another kind of
        processor.
    """
    began = time.perf_counter()
    config, method = row.config, METHODS[row.method]
    task, held = hold_out(load_task(config.task.task), row.seed, config.training.members)
    config = with_choices(config)
    post = Post(config)
    cohort = method.make(config, task, row.dropout, post)
    distances: list[float] = []

    def on_round(number: int, losses: dict[int, float]) -> None:
        distances.append(float(f"{cohort.relative_distance():.9g}"))
        progress(number)

    outcome = cohort.run(on_round)
    post.finish()
    examination = Evaluator(task, config)
    with one_thread():
        soup, weights = _soup(cohort, examination, tensors_of(held))
        soup_accuracy = outcome.members[soup[0]] if len(soup) == 1 else _accuracy(examination, weights)
        lines = _lines(cohort, examination)
    found = {
        "members": [outcome.members[member] for member in sorted(outcome.members)],
        "member": outcome.mean_member,
        "ensemble": outcome.ensemble,
        "averaged": outcome.averaged,
        "recalibrated": outcome.recalibrated,
        "soup": soup_accuracy,
    }
    figures = {
        "accuracy": found,
        "bytes": post.per_member(config.training.members),
        "distance": distances,
        "lines": {
            name: {"places": line.places, "losses": line.losses, "accuracies": line.accuracies}
            | {"barrier": line.barrier}
            for name, line in lines.items()
        },
        "soup_members": soup,
        "sha256": outcome.sha256,
        "seconds": time.perf_counter() - began,
        "machine": machine() | {"instructions": torch.backends.cpu.get_cpu_capability()},
    }
    return judged(figures, row.method)


def judged(figures: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return a row's figures with the accuracy of a method's product, which needs no other training."""
    found = figures["accuracy"]
    product = found["soup" if METHODS[method].product == "soup" else "recalibrated"]
    return {**figures, "accuracy": {**found, "product": product}}


def _accuracy(examination: Evaluator, weights: Arrays) -> float:
    return accuracy(logits_of(examination.model(weights), examination.inputs), examination.targets)


def _soup(
    cohort: Cohort, examination: Evaluator, held: tuple[torch.Tensor, torch.Tensor]
) -> tuple[list[int], Arrays]:
    """Return who is in the greedy soup, and its weights, BatchNorm re-estimated for every mean."""
    inputs, targets = held[0], held[1].numpy()

    def score(weights: Arrays) -> float:
        return accuracy(logits_of(examination.model(weights), inputs), targets)

    def blend(indices: Sequence[int]) -> Arrays:
        mean = cohort.mean(indices)
        return mean if len(indices) == 1 else cohort.recalibrated(mean, examination)

    scores = {index: score(cohort.weights(index)) for index in cohort.active()}
    return greedy_soup(scores, blend, score)


def _lines(cohort: Cohort, examination: Evaluator) -> dict[str, Line]:
    inputs, targets = examination.inputs[:LINE_EXAMPLES], examination.targets[:LINE_EXAMPLES]

    def evaluate(weights: Arrays) -> tuple[float, float]:
        logits = logits_of(examination.model(weights), inputs)
        loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))
        return float(loss), accuracy(logits, targets)

    def finish(weights: Arrays) -> Arrays:
        return cohort.recalibrated(weights, examination)

    active = cohort.active()
    first, second = (cohort.weights(index) for index in active[:2])
    return {
        "members": between(first, second, cohort.rules, finish, evaluate),
        "mean": between(first, cohort.mean(active), cohort.rules, finish, evaluate),
    }
