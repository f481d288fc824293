"""Named recipes: what a run exchanges, and how, where its options do not say.

``docs/evidence.md`` has what each of them gives, beside its bytes. ``auto`` is ``frugal`` where data belongs
to the devices, and ``wash`` where all members see the same.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from wash_fl.config import ExchangeConfig, RunConfig
from wash_fl.errors import ConfigError
from wash_fl.option import AUTO, Value


@dataclass(frozen=True)
class Recipe:
    """A named set of an exchange's options.

    Attributes
    ----------
    purpose : str
        For whom it is, in a few words.
    options : mapping of str to bool, int, float or str
        By the names of :class:`~wash_fl.config.ExchangeConfig`'s fields. A ``p`` is that of a whole round,
        but for a recipe that exchanges over streams: there it is that of an exchange.
    """

    purpose: str
    options: Mapping[str, Value]


RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        "paper": Recipe(
            "the paper repeated: after every step single values change places, fewer in deeper layers",
            {
                "mix": "shuffle",
                "topology": "permutation",
                "schedule": "decreasing",
                "p": 0.005,
                "exchange_plane": "stream",
            },
        ),
        "wash": Recipe(
            "members that see the same data: slices change places between pairs, and at last are averaged",
            {
                "mix": "shuffle",
                "topology": "pairs",
                "average_from": 0.75,
                "schedule": "size-aware",
                "p": 0.2,
                "dtype": "int8",
            },
        ),
        "pairs": Recipe(
            "the same, or a server that does no arithmetic on values: pairs of members take their mean",
            {
                "mix": "average",
                "topology": "pairs",
                "schedule": "size-aware",
                "p": 0.4,
                "dtype": "int4",
                "run_length": 16,
            },
        ),
        "frugal": Recipe(
            "data that belongs to the devices: differences are averaged over all, in few bits both ways",
            {
                "mix": "average",
                "topology": "all",
                "schedule": "size-aware",
                "p": 0.4,
                "dtype": "int4",
                "run_length": 16,
                "reference": "anchor",
                "outer_learning_rate": 0.7,
                "outer_momentum": 0.5,
            },
        ),
    }
)


def recipe_of(config: RunConfig, *, divided: bool) -> str:
    """Return the name of a run's recipe: the one that its options name, or the one ``auto`` stands for.

    Parameters
    ----------
    config : RunConfig
        The run's options.
    divided : bool
        Whether each member has data of its own.
    """
    exchange = config.exchange
    if exchange.recipe != AUTO:
        return exchange.recipe
    telling = ("mix", "topology", "average-from", "reference", "outer-learning-rate", "outer-momentum")
    given = {name for name in telling if name not in config.open}
    shuffles = "mix" in given and exchange.mix == "shuffle"
    if shuffles or ("topology" in given and exchange.topology == "permutation") or exchange.average_from:
        return "wash"
    if "topology" in given and exchange.topology == "pairs":
        return "pairs" if divided or "mix" in given else "wash"
    averages = divided or given or exchange.robust != "none"
    return "frugal" if averages else "wash"


def resolve(config: RunConfig, *, divided: bool) -> RunConfig:
    """Return a run's options with none left open: what they do not say is as its recipe has it.

    On the stream plane an exchange has a round's ``p`` divided by the exchanges of a round, so that a recipe
    costs about the same bytes on both planes.

    Parameters
    ----------
    config : RunConfig
        The run's options.
    divided : bool
        Whether each member has data of its own: ``auto`` depends on it.

    Raises
    ------
    ConfigError
        If an option that is given does not go with the recipe that is.
    """
    if not config.open:
        return config
    name = recipe_of(config, divided=divided)
    recipe = RECIPES[name].options
    names = {key.replace("-", "_") for key in config.open}
    decided = {key: value for key, value in recipe.items() if key in names}
    given = {each.name: getattr(config.exchange, each.name) for each in dataclasses.fields(config.exchange)}
    given = {key: value for key, value in given.items() if key not in names}
    if given.get("reference") == "values":
        decided = {key: value for key, value in decided.items() if not key.startswith("outer_")}
    if "p" in decided and "exchange_plane" not in recipe:
        decided["p"] = float(f"{float(decided['p']) / _parts(config):.2g}")
    try:
        exchange = ExchangeConfig(**{**given, **decided, "recipe": name})
    except ConfigError as error:
        raise ConfigError(f"{error} Here recipe = {name} has {_in_words(decided)}.") from error
    return dataclasses.replace(config, exchange=exchange, open=frozenset())


def exchange_of(name: str, *, local_steps: int, **options: Value) -> ExchangeConfig:
    """Return the options of an exchange by a recipe; those that are given win over it.

    Parameters
    ----------
    name : str
        One of :data:`RECIPES`, or ``none``.
    local_steps : int
        Optimizer steps of a member per round.
    **options : bool, int, float or str
        By the names of :class:`~wash_fl.config.ExchangeConfig`'s fields.
    """
    config = RunConfig.from_mapping({"recipe": name, "local-steps": local_steps, **options})
    return resolve(config, divided=True).exchange


def sentence(exchange: ExchangeConfig) -> str:
    """Return what an exchange does, in one sentence."""
    part = f"{100 * exchange.p:.3g} % of the parameters"
    when = f"every {exchange.every} optimizer steps" if exchange.every > 1 else "after every optimizer step"
    if not exchange.streams:
        when = "each round"
    if exchange.p_per == "step":
        part += " per optimizer step"
    if exchange.mix == "average":
        what = "are averaged " + ("in pairs of members" if exchange.members_average else "over all members")
    elif exchange.topology == "pairs":
        what = "change places between pairs of members"
    else:
        what = "change places, each for itself, among all members"
    if exchange.average_from:
        what += f", and are averaged from {100 * exchange.average_from:g} % of the run on"
    form = f"{exchange.dtype} differences" if exchange.anchored else exchange.dtype
    return f"{when} {part} {what}, as {form}"


def _parts(config: RunConfig) -> int:
    """Return into how many parts the ``p`` of a round is divided: exchanges, or steps if p is of one."""
    exchange, steps = config.exchange, config.training.local_steps
    if exchange.p_per == "step":
        return steps
    return max(1, steps // exchange.every) if exchange.streams else 1


def _in_words(options: Mapping[str, Value]) -> str:
    return ", ".join(f"{name.replace('_', '-')} = {value}" for name, value in options.items())
