"""A comparison on disk: what is to be trained, and the figures of every row that is done.

It can be interrupted at any time and gone on with by the same command; rows that are there are not trained
again. Figures and tables are made from the files, without training.
"""

import dataclasses
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from wash_fl.errors import ConfigError, DataError
from wash_fl.files import write_text
from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.row import Row, judged, run_row
from wash_fl.lab.compare.rows import PLAN, Figures, Key, read_rows, together, write_rows
from wash_fl.lab.pools import pool_of
from wash_fl.member.threads import processes_of_one_thread

FORMAT: Final = "wash-fl comparison 2"
ROWS: Final = "rows.jsonl"

OnRow = Callable[["Variant", int, dict[str, Any]], None]
"""Gets the variant, the seed and the figures of each row that is done."""


@dataclass(frozen=True)
class Variant:
    """Rows that differ only in their seed.

    Attributes
    ----------
    method : str
        How they train.
    changes : dict of str to object
        What they change in the comparison's options.
    dropout : float
        Probability that a member is away in a round.
    """

    method: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    dropout: float = 0.0

    @property
    def name(self) -> str:
        """The method and what is changed, such as ``wash p=0.05 dropout=0.2``; it names its rows."""
        changes = dict(self.changes) | ({"dropout": self.dropout} if self.dropout else {})
        return " ".join([self.method, *(f"{key}={value}" for key, value in changes.items())])


Pair = tuple[Variant, int]
"""A row, by its variant and seed."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes
    ----------
    options : dict of str to object
        Options of all runs, by name; those that are left out have their defaults.
    variants : tuple of Variant
        What is compared.
    seeds : tuple of int
        Every variant is trained with each.
    budget : float
        The part of FedAvg's bytes that each variant was to have, up and down; 0 for none.
    unable : dict of str to str
        The methods that cannot meet the budget, and why.
    """

    options: dict[str, Any]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    budget: float = 0.0
    unable: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.variants or not self.seeds:
            raise ConfigError("nothing to compare: give at least one method and one seed.")
        for variant in self.variants:
            if variant.method not in METHODS:
                raise ConfigError(
                    f"there is no method {variant.method!r}: use some of {', '.join(METHODS)}, or all."
                )
            if not 0.0 <= variant.dropout < 1.0:
                raise ConfigError(
                    f"dropout = {variant.dropout} is not allowed: it must be at least 0 and below 1."
                )
        if "seed" in self.options or any("seed" in each.changes for each in self.variants):
            raise ConfigError("a comparison has several seeds: write --seeds 0,1,2 in place of seed.")
        if twice := {each.name for each in self.variants if self.variants.count(each) > 1}:
            raise ConfigError(f"{', '.join(sorted(twice))} is asked for twice.")
        for variant in self.variants:
            _refuse_knobs_of_others(variant, self.options)
        for seed in self.seeds:
            for variant in self.variants:
                _ = self.row(variant, seed).knobs  # says what is wrong before anything is trained

    def row(self, variant: Variant, seed: int) -> Row:
        """Return what a variant trains with a seed."""
        return Row(variant.method, seed, {**self.options, **variant.changes}, variant.dropout)

    def pairs(self) -> Iterator[Pair]:
        """Return every row's variant and seed, the first seed of all variants first."""
        return ((variant, seed) for seed in self.seeds for variant in self.variants)


class Folder:
    """The files of a comparison.

    Parameters
    ----------
    path : Path
        Its folder.
    comparison : Comparison
        What is in it.
    rows : dict of (str, int) to dict
        Figures of the rows that are done, by the variant's name and the seed.
    """

    def __init__(self, path: Path, comparison: Comparison, rows: dict[Key, Figures]) -> None:
        self.path = path
        self.comparison = comparison
        self._rows = rows

    @classmethod
    def begin(cls, path: Path, comparison: Comparison) -> Self:
        """Make a comparison's folder, or go on with one of the same options.

        Variants and seeds may be added to one that is there.

        Raises
        ------
        ConfigError
            If the folder is that of other options.
        DataError
            If there is something else in it.
        """
        if (path / PLAN).exists():
            before = cls.open(path).comparison
            if before.options != comparison.options:
                raise ConfigError(
                    f"{path} has rows of other options ({_difference(before.options, comparison.options)}): "
                    "choose another folder, or the same options."
                )
            if before.budget != comparison.budget:
                raise ConfigError(
                    f"{path} has rows of {_budget(before)}, and {_budget(comparison)} is given: choose "
                    "another folder, or the same."
                )
            known = {each.name for each in before.variants}
            comparison = Comparison(
                comparison.options,
                (*before.variants, *(each for each in comparison.variants if each.name not in known)),
                tuple(dict.fromkeys((*before.seeds, *comparison.seeds))),
                comparison.budget,
                before.unable | comparison.unable,
            )
        elif path.exists() and any(path.iterdir()):
            raise DataError(f"{path} has files that are of no comparison: choose another folder.")
        plan: dict[str, Any] = {
            "format": FORMAT,
            "options": comparison.options,
            "seeds": list(comparison.seeds),
            "variants": [dataclasses.asdict(each) for each in comparison.variants],
        }
        if comparison.budget:
            plan |= {"budget": comparison.budget, "unable": comparison.unable}
        write_text(path / PLAN, json.dumps(plan, indent=1) + "\n")
        return cls(path, comparison, read_rows(path / ROWS))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a comparison that is there.

        Raises
        ------
        DataError
            If there is none, or it cannot be read.
        """
        try:
            plan = json.loads((path / PLAN).read_text(encoding="utf-8"))
            if plan["format"] != FORMAT:
                raise DataError(f"{path} has the format {plan['format']!r}, this version reads {FORMAT!r}.")
            variants = tuple(Variant(**each) for each in plan["variants"])
            budget, unable = float(plan.get("budget", 0.0)), dict(plan.get("unable", {}))
            comparison = Comparison(plan["options"], variants, tuple(plan["seeds"]), budget, unable)
            return cls(path, comparison, read_rows(path / ROWS))
        except FileNotFoundError:
            raise DataError(f"{path} holds no comparison: it has no {PLAN}.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path / PLAN} cannot be read ({error}): make the comparison again.") from error

    @classmethod
    def together(cls, paths: Sequence[Path]) -> Self:
        """Open several comparisons of the same options as one, to look at: nothing can be added to it.

        Raises
        ------
        ConfigError
            If their options differ.
        DataError
            If one cannot be read, or a row is in two of them with other weights.
        """
        first, *others = (cls.open(path) for path in paths)
        variants = {each.name: each for each in first.comparison.variants}
        seeds, unable = dict.fromkeys(first.comparison.seeds), dict(first.comparison.unable)
        for other in others:
            before, now = first.comparison.options, other.comparison.options
            if before != now:
                raise ConfigError(
                    f"{first.path} and {other.path} are of other options ({_difference(before, now)}): only "
                    "rows of the same can be put together."
                )
            if first.comparison.budget != other.comparison.budget:
                raise ConfigError(
                    f"{first.path} has rows of {_budget(first.comparison)}, {other.path} of "
                    f"{_budget(other.comparison)}: only rows of the same can be put together."
                )
            unable |= other.comparison.unable
            variants = {each.name: each for each in other.comparison.variants} | variants
            seeds |= dict.fromkeys(other.comparison.seeds)
        rows = together((each.path, each._rows) for each in (first, *others))
        options, budget = first.comparison.options, first.comparison.budget
        comparison = Comparison(options, tuple(variants.values()), tuple(seeds), budget, unable)
        return cls(first.path, comparison, rows)

    def figures(self, variant: Variant, seed: int) -> Figures | None:
        """Return a row's figures; None if it is not done."""
        return self._rows.get((variant.name, seed))

    def put(self, rows: Iterable[tuple[Variant, int, Figures]]) -> None:
        """Add rows, or replace them, in memory and in the file."""
        own = {(variant.name, seed): figures for variant, seed, figures in rows}
        # Read again: another command may have added rows meanwhile.
        write_rows(self.path / ROWS, read_rows(self.path / ROWS) | own)
        self._rows = read_rows(self.path / ROWS)

    def missing(self) -> list[Pair]:
        """Return the rows that are not done."""
        return [pair for pair in self.comparison.pairs() if self.figures(*pair) is None]

    def run(
        self,
        *,
        workers: int,
        on_row: OnRow,
    ) -> None:
        """Train what is missing, several rows at a time, each in a process with one thread.

        Rows whose members are trained alike, as those of ``isolated`` and ``greedy-soup``, are trained once.

        Parameters
        ----------
        workers : int
            Processes.
        on_row : callable
            Told of each row that is done.
        """
        alike = self._take_what_is_trained(on_row)
        if workers == 1 or len(alike) == 1:
            for pairs in alike:
                self._done(pairs, run_row(self.comparison.row(*pairs[0])), on_row)
            return
        with pool_of(workers) as pool:
            with processes_of_one_thread():
                running: dict[Future[dict[str, Any]], list[Pair]] = {
                    pool.submit(run_row, self.comparison.row(*pairs[0])): pairs for pairs in alike
                }
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._done(running.pop(future), future.result(), on_row)

    def _take_what_is_trained(self, on_row: OnRow) -> list[list[Pair]]:
        """Finish missing rows whose members another has trained; return the rest, those alike together."""
        alike: dict[Hashable, list[Pair]] = {}
        for pair in self.comparison.pairs():
            alike.setdefault(self.comparison.row(*pair).training, []).append(pair)
        remaining = []
        for pairs in alike.values():
            missing = [pair for pair in pairs if self.figures(*pair) is None]
            there = next((self.figures(*pair) for pair in pairs if pair not in missing), None)
            if there is not None:
                self._done(missing, there, on_row)
            elif missing:
                remaining.append(missing)
        return remaining

    def _done(self, pairs: Sequence[Pair], figures: dict[str, Any], on_row: OnRow) -> None:
        own = [(variant, seed, judged(figures, variant.method)) for variant, seed in pairs]
        self.put(own)
        for variant, seed, judgement in own:
            on_row(variant, seed, judgement)


def variants_of(methods: Sequence[str], vary: Sequence[str], dropout: Sequence[float]) -> tuple[Variant, ...]:
    """Return every method with every value of what is varied.

    Parameters
    ----------
    methods : sequence of str
        Names.
    vary : sequence of str
        Such as ``local-steps=1,8,64``; several are combined.
    dropout : sequence of float
        Rates; empty for none.
    """
    changes: list[dict[str, Any]] = [{}]
    for text in vary:
        key, found, values = text.partition("=")
        if not found or not values:
            raise ConfigError(f"{text!r} is nothing to vary: write it like local-steps=1,8,64.")
        changes = [{**each, key: parsed(value)} for each in changes for value in values.split(",")]
    return tuple(
        Variant(method, each, rate) for method in methods for each in changes for rate in dropout or (0.0,)
    )


def parsed(text: str) -> Any:
    """Return an option's value from text: a number or a truth value where it looks like one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _refuse_knobs_of_others(variant: Variant, options: dict[str, Any]) -> None:
    """Refuse an option that another method has, and this one has not: it is none of the run's either."""
    for key in (each.replace("_", "-") for each in (*options, *variant.changes)):
        others = [name for name, method in METHODS.items() if key in method.keys]
        if others and key not in METHODS[variant.method].keys:
            raise ConfigError(
                f"{key} is no option of the method {variant.method}: give it to {', '.join(others)} only, by "
                "--methods."
            )


def _budget(comparison: Comparison) -> str:
    return f"the budget {comparison.budget:g}" if comparison.budget else "no budget"


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return ", ".join(
        f"{key}: {before.get(key, 'default')} there, {now.get(key, 'default')} here" for key in keys
    )
