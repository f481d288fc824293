"""The product's recipes as methods: what ``--recipe`` makes of a run."""

from typing import Final

from wash_fl.core.recipes import RECIPES
from wash_fl.lab.compare.methods.method import Method, shuffled
from wash_fl.lab.compare.methods.wash import FIT

NAMES: Final = ("frugal", "pairs", "wash")
"""Those that exchange once per round, as the other methods do."""

FRUGAL, PAIRS, WASH = (
    Method(
        f"recipe-{name}",
        f"wash_fl's recipe {name}, for {RECIPES[name].purpose}",
        shuffled,
        {"recipe": name},
        fit=FIT,
    )
    for name in NAMES
)
