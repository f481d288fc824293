"""What one bad device, or two, does to the averaged model: attack by attack, with the rules against it.

The members train as in :class:`~wash_fl.lab.compare.trainer.Trainer`; what the bad ones say is replaced where
it leaves them. In their own training they are honest, so that they know as much as can be known.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from torch import nn

from wash_fl.config import FEWEST_ROBUST, FleetConfig, RunConfig
from wash_fl.consensus.batchnorm import BatchNormStatistics
from wash_fl.core.codec import rounded
from wash_fl.core.rules import MEANS
from wash_fl.errors import ConfigError
from wash_fl.lab.bench.attacks import ATTACKS, HONEST, Attack, Where
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.protocol.journal_rows import Values
from wash_fl.tasks.task import Task, load_task

RECIPES: Final = ("frugal", "wash", "pairs")

FLEETS: Final = ((4, 1), (5, 1), (8, 2))
"""Members, and how many of them are bad."""

OPTIONS: Final[dict[str, Any]] = {"rounds": 10, "local-steps": 24}


def run(
    task: str = "digits",
    *,
    recipes: Sequence[str] = RECIPES,
    fleets: Sequence[tuple[int, int]] = FLEETS,
    attacks: Sequence[str] = tuple(ATTACKS),
    seeds: Sequence[int] = (0,),
    options: dict[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train fleets with bad members, and compare the averaged model with that of the honest ones.

    Parameters
    ----------
    task : str
        As ``--task``.
    recipes : sequence of str
        How slices are exchanged.
    fleets : sequence of (int, int)
        Members, and how many of them are bad.
    attacks : sequence of str
        Of :data:`~wash_fl.lab.bench.attacks.ATTACKS`.
    seeds : sequence of int
        Of runs.
    options : dict, optional
        Options of the runs in place of the defaults: ``outlier-factor`` and ``final-average`` among them.
    progress : callable
        Gets a line after each run.

    Returns
    -------
    dict
        ``task``, ``options``, ``seeds``; ``rows``, each with ``recipe``, ``members``, ``bad``, ``attack``,
        ``seed``, ``accuracy`` (of the averaged model on the test data), ``points_lost`` (percentage points,
        against the same fleet without an attack), ``found`` (how many of the bad were left out) and
        ``honest_left_out``; ``most_lost`` by attack, and ``honest_left_out`` in all.
    """
    settings = {**OPTIONS, **(options or {}), "task": task}
    loaded = load_task(task)
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        for members, number in fleets:
            for seed in seeds:
                config = RunConfig.from_mapping(
                    settings | {"recipe": recipe, "members": members, "seed": seed}
                )
                # Not the first ones: what is nobody's mean is the first member's.
                bad = tuple(range(1, 1 + number))
                honest = None
                for name in dict.fromkeys([HONEST, *attacks]):
                    row = _row(config, loaded, name, bad if name != HONEST else ())
                    honest = row["accuracy"] if honest is None else honest
                    row["points_lost"] = 100 * (honest - row["accuracy"])
                    rows.append({"recipe": recipe, "members": members, "bad": number, "seed": seed} | row)
                    progress(
                        f"{recipe}, {number} of {members}, {name}: {row['accuracy']:.4f}, "
                        f"{row['found']} found"
                    )
    return {
        "task": task,
        "options": {key: settings[key] for key in sorted(settings)},
        "outlier_factor": settings.get("outlier-factor", FleetConfig.outlier_factor),
        "seeds": list(seeds),
        "rows": rows,
        "most_lost": {
            name: max(row["points_lost"] for row in rows if row["attack"] == name)
            for name in dict.fromkeys(row["attack"] for row in rows)
        },
        "honest_left_out": sum(row["honest_left_out"] for row in rows),
    }


class Cases(TypedDict):
    """What :func:`run` tries."""

    recipes: Sequence[str]
    fleets: Sequence[tuple[int, int]]
    attacks: Sequence[str]


def cases(*, recipes: str, fleets: str, attacks: str, robust: bool = False, quick: bool = False) -> Cases:
    """Return what is to be tried, read from a command line; what is empty there is all of it.

    Parameters
    ----------
    recipes, attacks : str
        Names with commas between.
    fleets : str
        Members and how many of them are bad, such as ``4:1,8:2``.
    robust : bool
        Exchanges take a robust mean: only averages over all of five members or more can.
    quick : bool
        One recipe and one fleet, unless they are given.

    Raises
    ------
    ConfigError
        If a name is unknown, or a fleet cannot be one.
    """
    usual = [each for each in FLEETS if not robust or each[0] >= FEWEST_ROBUST]
    most = 1 if quick else None
    return Cases(
        recipes=_names("recipes", recipes, RECIPES) or RECIPES[: 1 if robust else most],
        fleets=[_fleet(each) for each in fleets.split(",")] if fleets else usual[:most],
        attacks=_names("attacks", attacks, ATTACKS) or tuple(ATTACKS),
    )


def _names(option: str, text: str, choices: Iterable[str]) -> tuple[str, ...]:
    names = tuple(each.strip() for each in text.split(",") if each.strip())
    for name in names:
        if name not in choices:
            raise ConfigError(f"{option} names {name!r}, which is none: there are {', '.join(choices)}.")
    return names


def _fleet(text: str) -> tuple[int, int]:
    members, _, bad = text.partition(":")
    try:
        fleet = int(members), int(bad)
    except ValueError:
        fleet = 0, 0
    if not 1 <= fleet[1] < fleet[0]:
        raise ConfigError(f"fleets names {text!r}: write members and how many of them are bad, such as 8:2.")
    return fleet


def tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures for people: a row for each run, and then what each attack cost at most."""
    runs = Table(
        "recipe", "bad", "attack", "averaged", "lost", "found", "honest left out", title="bench poison"
    )
    for row in figures["rows"]:
        runs.add_row(
            row["recipe"],
            f"{row['bad']} of {row['members']}",
            row["attack"],
            f"{100 * row['accuracy']:.2f} %",
            f"{row['points_lost']:.2f}",
            str(row["found"]),
            str(row["honest_left_out"]),
        )
    most = Table("attack", "points lost at most")
    for name, points in figures["most_lost"].items():
        most.add_row(name, f"{points:.2f}")
    return [runs, most]


def _row(config: RunConfig, task: Task, name: str, bad: Sequence[int]) -> dict[str, Any]:
    trainer = PoisonedTrainer(config, task, ATTACKS[name], bad)
    outcome = trainer.run()
    left_out = trainer.aside.keys() | trainer.unused.keys()
    return {
        "attack": name,
        "accuracy": outcome.recalibrated,
        "found": len(left_out & set(bad)),
        "honest_left_out": len(left_out - set(bad)),
    }


class PoisonedTrainer(Trainer):
    """A trainer some of whose members are bad.

    Parameters
    ----------
    config, task
        As for :class:`~wash_fl.lab.compare.trainer.Trainer`.
    attack : Attack
        What they say.
    bad : sequence of int
        Which they are.
    """

    def __init__(self, config: RunConfig, task: Task, attack: Attack, bad: Sequence[int]) -> None:
        self._attack, self._bad = attack, frozenset(bad)
        super().__init__(config, task)
        self._last_layer = self.draw.layout.tensors[-1].name.rpartition(".")[0]

    def offer_of(self, index: int, number: int) -> tuple[Values, int]:
        """Return what a member offers; of a bad one, what it pretends to hold."""
        values, chain = super().offer_of(index, number)
        if index not in self._bad or self._attack.offer is None or not values.size:
            return values, chain
        member, places, layout = self.members[index], self.draw.coordinates(number), self.draw.layout
        owner = np.searchsorted(layout.offsets, places, "right") - 1
        of_last = [each.name.rpartition(".")[0] == self._last_layer for each in layout.tensors]
        last = self.draw.schedule.exchanges
        where = Where(member.offer(number), np.array(of_last)[owner], number, last)
        lie = self._attack.offer(where).astype(np.float32)
        if member.anchor is not None:
            lie = lie - member.anchor.at(places)
        return rounded(lie, self._dtype), chain

    def weights(self, index: int) -> dict[str, NDArray[Any]]:
        """Return a member's whole state dict; of a bad one, what it hands in."""
        arrays = super().weights(index)
        if index not in self._bad or self._attack.model is None:
            return arrays
        change = self._attack.model
        return {
            name: np.asarray(change(name, array, name.rpartition(".")[0] == self._last_layer), array.dtype)
            if self.rules.rules.get(self.rules.first[name]) in MEANS
            else array
            for name, array in arrays.items()
        }

    def statistics_of(self, index: int, model: nn.Module) -> BatchNormStatistics:
        """Return a member's BatchNorm statistics; of a bad one, what it claims."""
        statistics = super().statistics_of(index, model)
        if index not in self._bad or self._attack.statistics is None:
            return statistics
        return self._attack.statistics(statistics)
