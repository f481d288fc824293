"""What fewer bytes per value cost: the averaged model's accuracy by dtype, with and without the residual."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from wash_fl.config import RunConfig
from wash_fl.consensus.evaluate import accuracy, logits_of
from wash_fl.consensus.finish import Arrays, Evaluator
from wash_fl.core.codec import delivery_dtype, encoded_size
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.tasks.task import load_task

SEEDS: Final = (0, 1, 2)

OPTIONS: Final[dict[str, Any]] = {
    "recipe": "none",
    "task": "fashion-mnist",
    "train_examples": 5000,
    "test_examples": 5000,
    "rounds": 250,
    "local_steps": 1,
    "batch_size": 16,
    # Chosen so that the residual matters: steps that are small beside int8's, and nearly all values rounded
    # after each of them. At ten times this learning rate and p = 0.5 it made no visible difference.
    "learning_rate": 0.01,
    "p": 0.9,
    "schedule": "constant",
}

QUICK: Final[dict[str, Any]] = OPTIONS | {
    "task": "digits",
    "train_examples": 0,
    "test_examples": 0,
    "members": 3,
    "rounds": 60,
}


@dataclass(frozen=True)
class Variant:
    """A way of sending values.

    Attributes
    ----------
    name : str
        What it is called in the figures.
    dtype : str
        Of the offers.
    keep_residual : bool
        Whether a member keeps what its offer leaves out.
    """

    name: str
    dtype: str
    keep_residual: bool = True


REFERENCE: Final = Variant("float32", "float32")
VARIANTS: Final = (
    REFERENCE,
    Variant("bfloat16", "bfloat16"),
    Variant("int8", "int8"),
    Variant("int4", "int4"),
    Variant("int3", "int3"),
    Variant("int2", "int2"),
    Variant("int8 without residual", "int8", keep_residual=False),
    Variant("int4 without residual", "int4", keep_residual=False),
)
TOPOLOGIES: Final = ("pairs", "permutation")


def run(quick: bool = False, *, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Train the same ensembles with each dtype, in this process, and compare the averaged models.

    Parameters
    ----------
    quick : bool
        The digits and one seed, in seconds: to see that it works, not to conclude from.
    progress : callable
        Gets a line after each run.

    Returns
    -------
    dict
        ``options`` and ``seeds``; by topology and variant ``accuracy`` (of the averaged model on the test
        data, mean over the seeds), ``accuracies`` (by seed), ``points_below_float32`` (percentage points of
        the mean), ``bytes_ratio`` (of the offers' values, relative to float32) and ``bytes_ratio_down`` (of
        the deliveries'); by topology a ``verdict`` on int8 and int4.
    """
    options, seeds = (QUICK, SEEDS[:1]) if quick else (OPTIONS, SEEDS)
    figures: dict[str, Any] = {"options": dict(options), "seeds": list(seeds)}
    task = load_task(options["task"])
    evaluator = Evaluator(task, RunConfig.from_mapping(options))
    for topology in TOPOLOGIES:
        by_variant: dict[str, dict[str, Any]] = {}
        for variant in VARIANTS:
            accuracies = []
            for seed in seeds:
                config = RunConfig.from_mapping(
                    {**options, "mix": "shuffle", "topology": topology, "dtype": variant.dtype, "seed": seed}
                    # The members' own accuracies would take as long as their training, and are not asked for.
                    | {"test_examples": 10}
                )
                trainer = Trainer(config, task, keep_residual=variant.keep_residual)
                accuracies.append(_accuracy(evaluator, trainer.run().weights))
                progress(f"{topology}, {variant.name}, seed {seed}: {accuracies[-1]:.4f}")
            up, down = _bytes_ratios(trainer)
            by_variant[variant.name] = {
                "accuracy": statistics.fmean(accuracies),
                "accuracies": accuracies,
                "bytes_ratio": up,
                "bytes_ratio_down": down,
            }
        reference = by_variant[REFERENCE.name]["accuracy"]
        for each in by_variant.values():
            each["points_below_float32"] = 100.0 * (reference - each["accuracy"])
        figures[topology] = by_variant
        figures[f"verdict_{topology}"] = verdict(by_variant)
    return figures


def verdict(by_variant: dict[str, dict[str, Any]]) -> str:
    """Return what the figures of a topology show of int8 and int4, and of their residuals, in words."""
    return ". ".join(_verdict(by_variant, dtype) for dtype in ("int8", "int4"))


def _verdict(by_variant: dict[str, dict[str, Any]], dtype: str) -> str:
    with_residual, without_residual = by_variant[dtype], by_variant[f"{dtype} without residual"]
    below = _compared(-with_residual["points_below_float32"], "float32")
    worse = _compared(
        with_residual["points_below_float32"] - without_residual["points_below_float32"], "with it"
    )
    return (
        f"{dtype} is {below}, at {with_residual['bytes_ratio']:.3f} of the bytes up and "
        f"{with_residual['bytes_ratio_down']:.3f} down; without the residual it is {worse}"
    )


def _compared(points: float, other: str) -> str:
    if abs(points) < 0.005:
        return f"as good as {other}"
    return f"{abs(points):.2f} points {'worse' if points < 0 else 'better'} than {other}"


def _accuracy(evaluator: Evaluator, weights: Arrays) -> float:
    model = evaluator.model(weights)
    return accuracy(logits_of(model, evaluator.inputs), evaluator.targets)


def _bytes_ratios(trainer: Trainer) -> tuple[float, float]:
    """Return the bytes of a run's values relative to float32, of the offers and of the deliveries."""
    draw, config = trainer.members[0].draw, trainer.config
    slots = len(draw.layout.slots)
    counts = [draw.count(number) for number in range(1, config.training.rounds + 1)]

    def total(dtype: str) -> int:
        return sum(encoded_size(dtype, slots, count) for count in counts)

    plain = total("float32")
    return total(config.exchange.dtype) / plain, total(delivery_dtype(config.exchange)) / plain
