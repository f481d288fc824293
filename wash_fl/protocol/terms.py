"""The terms of a run: what the server announces once, and every member agrees to when it joins."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, Self

from wash_fl.config import ExchangeConfig, RunConfig
from wash_fl.core.packet import RUN_BYTES
from wash_fl.core.schedule import Schedule
from wash_fl.errors import ConfigError
from wash_fl.option import AUTO

LATER: Final = {
    "dtype": "float32",
    "exchange_plane": "round",
    "every": 1,
    "overlap": False,
    "recipe": "none",
    "average_from": 0.0,
    "run_length": 1,
    "reference": "values",
    "outer_learning_rate": 1.0,
    "outer_momentum": 0.0,
    "robust": "none",
}
"""Options of the exchange that runs of the first version did not have, as they were without them."""

AVERAGING: Final = "averaging"
"""A key of its own for among whom a mix of averages averages, ``all`` if it is missing.

The first version averaged over all whatever ``topology`` was, and wrote ``pairs`` there. So an average over
all still has that text, and an average in pairs has a key that older versions refuse, and do not misread.
"""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Everything that decides which values travel when; both sides compute the rest from it.

    Attributes
    ----------
    run_name : str
        Tells runs apart.
    seed : int
        The run seed.
    members : int
        Size of the ensemble; members have the indices 0 to members - 1.
    rounds : int
        Rounds in the run; on the round plane one exchange each.
    local_steps : int
        Optimizer steps of a member per round.
    exchange : ExchangeConfig
        What is exchanged and how it is mixed; a run length that it leaves open is filled in.
    """

    run_name: str
    seed: int
    members: int
    rounds: int
    local_steps: int
    exchange: ExchangeConfig

    def __post_init__(self) -> None:
        # What the options were made from decides nothing any more.
        object.__setattr__(self, "exchange", dataclasses.replace(self.exchange, recipe="none"))

    @property
    def schedule(self) -> Schedule:
        """How probable an exchange is, over depth and over the run."""
        return Schedule.between(self.exchange, self.rounds, self.local_steps)

    def to_json(self) -> str:
        """Return the terms as JSON with sorted keys; what came later is left out where it is not used."""
        content = dataclasses.asdict(self)
        exchange = content["exchange"]
        for name, unused in LATER.items():
            if exchange[name] == unused:
                del exchange[name]
        if exchange["topology"] == "all":
            exchange["topology"] = "pairs"
        if self.exchange.members_average:
            exchange[AVERAGING] = "pairs"
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read terms that came from a wire or a disk.

        Raises
        ------
        ConfigError
            If they are damaged, or of a version with other options.
        """
        try:
            content = json.loads(text)
            exchange = ExchangeConfig(**_with_topology(content["exchange"]))
            terms = cls(**{**content, "exchange": exchange})
            given = dataclasses.asdict(terms)
        except ConfigError as error:
            raise ConfigError(f"the run's terms are not possible: {error}") from error
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise ConfigError(f"the run's terms cannot be read ({error}): update the older side.") from error
        later = {*LATER, AVERAGING}
        if given["exchange"].keys() - later != content["exchange"].keys() - later:
            raise ConfigError("the run's terms leave options out: update the older side.")
        # An option that means something else here, or nothing, would draw other coordinates unnoticed.
        options = {**given, **given["exchange"]}
        del options["exchange"]
        try:
            RunConfig.from_mapping(options)
        except ConfigError as error:
            raise ConfigError(f"the run's terms are not possible: {error}") from error
        return terms


def _with_topology(exchange: dict[str, Any]) -> dict[str, Any]:
    """Return the options of an exchange as :class:`ExchangeConfig` has them, from those in terms.

    Raises
    ------
    ConfigError
        If the two keys do not go together.
    """
    options = {**exchange}
    averaging = options.pop(AVERAGING, None)
    topology = options.get("topology")
    if averaging is not None and (averaging, options.get("mix"), topology) != ("pairs", "average", "pairs"):
        raise ConfigError(
            f"averaging = {averaging!r} is of another version, or not of mix = {options.get('mix')!r} and "
            f"topology = {topology!r}."
        )
    for name, value in options.items():
        if value == AUTO:
            raise ConfigError(f"{name} = 'auto' is not allowed: terms leave no choice open.")
    if topology == "all":
        raise ConfigError(f"topology = {topology!r} is not allowed: terms have pairs or permutation.")
    if options.get("mix") == "average" and averaging is None and topology == "pairs":
        options["topology"] = "all"
    return options


def run_identity(terms: Terms) -> bytes:
    """Return 16 bytes that differ between runs: from the run's name and everything it agrees on."""
    return hashlib.sha256(b"wash-fl run 1" + terms.to_json().encode()).digest()[:RUN_BYTES]
