"""Variants with the knobs that their methods choose for a budget."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from wash_fl.errors import ConfigError
from wash_fl.lab.compare.budget import OverBudgetError, Run
from wash_fl.lab.compare.comparison import Variant
from wash_fl.lab.compare.methods import METHODS


def within(
    budget: float, options: dict[str, Any], variants: Sequence[Variant], seed: int
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Return variants with the knobs that their methods choose for a budget, and why others cannot meet it.

    Parameters
    ----------
    budget : float
        Part of FedAvg's bytes, up and down.
    options : dict of str to object
        Of all runs.
    variants : sequence of Variant
        Without what the methods choose.
    seed : int
        A slice's size varies a little with the seed; this one's is taken.

    Raises
    ------
    ConfigError
        If what a method chooses is given.
    """
    able: list[Variant] = []
    unable: dict[str, str] = {}
    for variant in variants:
        method = METHODS.get(variant.method)
        if method is None:
            able.append(variant)  # the comparison says what is wrong with it
            continue
        if method.fit is None:
            unable[variant.name] = "it sends nothing while it trains"
            continue
        own = {key.replace("_", "-"): value for key, value in {**options, **variant.changes}.items()}
        if twice := sorted(own.keys() & set(method.fit.keys)):
            raise ConfigError(
                f"{', '.join(twice)} is given, and {method.name} chooses it for the budget: leave one of the "
                "two out."
            )
        try:
            choice = method.fit.to(Run.of(method.config({**own, "seed": seed})), budget)
        except OverBudgetError as error:
            unable[variant.name] = str(error)
        else:
            able.append(dataclasses.replace(variant, changes={**variant.changes, **choice.changes}))
    return tuple(able), unable
