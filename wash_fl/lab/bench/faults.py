"""A fleet with every fault that is known, as often as asked: no value is ever lost, and none is made."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wash_fl.errors import ConfigError
from wash_fl.lab.machine import cores, folder_in_memory
from wash_fl.lab.pools import pool_of
from wash_fl.lab.search.moments import Killed
from wash_fl.lab.search.walk import walk
from wash_fl.member.threads import one_thread

PORTION = 250
"""Examples that a process does at a time."""

FEW = 200
"""Examples for which it does not pay to start processes."""

NAMED = 100
"""Violations that are named."""

TESTED = ("wash_fl.protocol.", "wash_fl.member.", "wash_fl.core.", "wash_fl.storage.", "wash_fl.stream.calls")
"""What is searched for faults: nothing of it is written once more for the search."""


@dataclass
class _Tally:
    """What came out of some examples."""

    faults: Counter[str] = field(default_factory=Counter)
    settings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


def run(examples: int, seed: int = 0, *, workers: int | None = None, first: int = 0) -> dict[str, Any]:
    """Walk through examples of :mod:`wash_fl.lab.search` and count what goes wrong.

    In each example a fleet of 3 to 5 members goes through several rounds, on one of the planes: with messages
    that are dropped, delayed, duplicated, reordered and corrupted, calls that break, members and servers that
    are killed at any moment, disks that fail, power cuts that take what was not synced, older copies of a
    member or of the journal that somebody restores, second processes, clocks that jump, and members that
    leave, return and join late. After everything that happens the values that the members hold are compared
    with those they should, and at the end those that are collected.

    Parameters
    ----------
    examples : int
        How many.
    seed : int
        Another seed, other examples.
    workers : int, optional
        Processes; by default as many as there are cores.
    first : int
        Number of the first example, to see one again.

    Returns
    -------
    dict
        ``examples``; how many there were by ``planes``, ``mixes`` and ``dtypes``; ``code``, the modules that
        decided; ``faults`` (a count by kind); ``violations``, and if there are any, what was
        ``violated`` (the first 100); ``workers`` and ``seconds``.
    """
    if examples < 0 or first < 0 or (workers is not None and workers < 1):
        raise ConfigError(
            f"{examples} examples from number {first} in {workers} processes: take 0 or more examples, from "
            "0 or more, in 1 process or more."
        )
    begin = time.perf_counter()
    limit = workers if workers is not None else cores()
    used = 1 if examples < FEW else min(limit, -(-examples // PORTION))
    portions = [
        range(start, min(start + PORTION, first + examples))
        for start in range(first, first + examples, PORTION)
    ]
    total = _Tally()
    for part in _results(seed, portions, used):
        total.faults += part.faults
        total.settings += part.settings
        total.violations += part.violations
    figures: dict[str, Any] = {
        "examples": examples,
        **{name: _counts(total.settings, place) for place, name in enumerate(("planes", "mixes", "dtypes"))},
        "code": sorted(each for each in sys.modules if each.startswith(TESTED)),
        "faults": dict(sorted(total.faults.items())),
        "violations": len(total.violations),
    }
    if total.violations:
        figures["violated"] = total.violations[:NAMED]
    return figures | {"workers": used, "seconds": time.perf_counter() - begin}


def _counts(settings: Counter[tuple[str, str, str]], place: int) -> dict[str, int]:
    """Return the examples by one part of their settings."""
    counts: Counter[str] = Counter()
    for each, count in settings.items():
        counts[each[place]] += count
    return dict(sorted(counts.items()))


def _results(seed: int, portions: list[range], workers: int) -> Iterator[_Tally]:
    """Yield what came out of each portion, in order, whoever did it."""
    if workers == 1:
        yield from map(_walk, repeat(seed), portions)
        return
    with pool_of(workers) as pool:
        yield from pool.map(_walk, repeat(seed), portions)


def _walk(seed: int, examples: Iterable[int]) -> _Tally:
    tally = _Tally()
    with one_thread():
        for example in examples:
            _one(seed, example, tally)
    return tally


def _one(seed: int, example: int, tally: _Tally) -> None:
    # In memory if possible: what is tested dies with the process, not with the power.
    with TemporaryDirectory(prefix="wash-fl-faults-", dir=folder_in_memory()) as folder:
        try:
            walk(seed, example, Path(folder), tally.faults, tally.settings)
        except (Exception, Killed) as error:
            reason = " ".join(str(error).split()) or "no reason"
            tally.violations.append(
                f"example {example} of seed {seed}: {type(error).__name__}: {reason} "
                f"(again: wash-fl bench faults --examples 1 --first {example} --seed {seed})"
            )
