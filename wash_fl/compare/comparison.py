"""A comparison on disk: what is to be trained, and a file of figures for every row that is done.

It can be interrupted at any time and gone on with by the same command; rows that are there are not trained
again. Figures and tables are made from the files, without training.
"""

import dataclasses
import json
import multiprocessing
import signal
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from wash_fl.compare.methods import METHODS
from wash_fl.compare.row import Row, judged, run_row
from wash_fl.errors import ConfigError, DataError
from wash_fl.files import write_text
from wash_fl.member.threads import processes_of_one_thread

FORMAT: Final = "wash-fl comparison 1"
PLAN: Final = "comparison.json"
ROWS: Final = "rows"

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
        """The method and what is changed, such as ``wash p=0.05 dropout=0.2``; also the name of its files."""
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
    """

    options: dict[str, Any]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]

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
        for seed in self.seeds:
            for variant in self.variants:
                _ = self.row(variant, seed).config  # says what is wrong before anything is trained

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
    """

    def __init__(self, path: Path, comparison: Comparison) -> None:
        self.path = path
        self.comparison = comparison

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
            known = {each.name for each in before.variants}
            comparison = Comparison(
                comparison.options,
                (*before.variants, *(each for each in comparison.variants if each.name not in known)),
                tuple(dict.fromkeys((*before.seeds, *comparison.seeds))),
            )
        elif path.exists() and any(path.iterdir()):
            raise DataError(f"{path} has files that are of no comparison: choose another folder.")
        plan = {
            "format": FORMAT,
            "options": comparison.options,
            "seeds": list(comparison.seeds),
            "variants": [dataclasses.asdict(each) for each in comparison.variants],
        }
        write_text(path / PLAN, json.dumps(plan, indent=1) + "\n")
        return cls(path, comparison)

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
            return cls(path, Comparison(plan["options"], variants, tuple(plan["seeds"])))
        except FileNotFoundError:
            raise DataError(f"{path} holds no comparison: it has no {PLAN}.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path / PLAN} cannot be read ({error}): make the comparison again.") from error

    def file(self, variant: Variant, seed: int) -> Path:
        """Return where a row's figures are."""
        return self.path / ROWS / f"{variant.name} seed={seed}.json"

    def figures(self, variant: Variant, seed: int) -> dict[str, Any] | None:
        """Return a row's figures; None if it is not done.

        Raises
        ------
        DataError
            If they cannot be read.
        """
        path = self.file(variant, seed)
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(
                f"{path} cannot be read ({error}): remove it, and run the command again."
            ) from error

    def missing(self) -> list[Pair]:
        """Return the rows that are not done."""
        return [pair for pair in self.comparison.pairs() if not self.file(*pair).exists()]

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
        # Not forked: torch has threads.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
        try:
            with processes_of_one_thread():
                running: dict[Future[dict[str, Any]], list[Pair]] = {
                    pool.submit(run_row, self.comparison.row(*pairs[0])): pairs for pairs in alike
                }
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._done(running.pop(future), future.result(), on_row)
        except BaseException:
            # What is under way is lost, and nobody waits for it. Before Python 3.14 there is no public way.
            for process in list(pool._processes.values()):
                process.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _take_what_is_trained(self, on_row: OnRow) -> list[list[Pair]]:
        """Finish missing rows whose members another has trained; return the rest, those alike together."""
        alike: dict[Hashable, list[Pair]] = {}
        for pair in self.comparison.pairs():
            alike.setdefault(self.comparison.row(*pair).training, []).append(pair)
        remaining = []
        for pairs in alike.values():
            missing = [pair for pair in pairs if not self.file(*pair).exists()]
            there = next((self.figures(*pair) for pair in pairs if pair not in missing), None)
            if there is not None:
                self._done(missing, there, on_row)
            elif missing:
                remaining.append(missing)
        return remaining

    def _done(self, pairs: Sequence[Pair], figures: dict[str, Any], on_row: OnRow) -> None:
        for variant, seed in pairs:
            own = judged(figures, variant.method)
            write_text(self.file(variant, seed), json.dumps(own) + "\n")
            on_row(variant, seed, own)


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


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return ", ".join(
        f"{key}: {before.get(key, 'default')} there, {now.get(key, 'default')} here" for key in keys
    )


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that started this one; it says one thing, and not each of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
