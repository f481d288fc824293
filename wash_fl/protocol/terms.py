"""The terms of a run: what the server announces once, and every member agrees to when it joins."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Final, Self

from wash_fl.config import ExchangeConfig, RunConfig
from wash_fl.core.auto import chosen
from wash_fl.core.packet import RUN_BYTES
from wash_fl.core.schedule import Schedule
from wash_fl.errors import ConfigError

LATER: Final = {
    "dtype": "float32",
    "exchange_plane": "round",
    "every": 1,
    "overlap": False,
    "reference": "values",
    "outer_learning_rate": 1.0,
    "outer_momentum": 0.0,
}
"""Options of the exchange that runs of the first version did not have, as they were without them."""


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
        What is exchanged and how it is mixed.
    """

    run_name: str
    seed: int
    members: int
    rounds: int
    local_steps: int
    exchange: ExchangeConfig

    @property
    def schedule(self) -> Schedule:
        """How probable an exchange is, over depth and over the run."""
        return Schedule.between(self.exchange, self.rounds, self.local_steps)

    def to_json(self) -> str:
        """Return the terms as JSON with sorted keys; what came later is left out where it is not used."""
        content = dataclasses.asdict(self)
        for name, unused in LATER.items():
            if content["exchange"][name] == unused:
                del content["exchange"][name]
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
            exchange = ExchangeConfig(**content["exchange"])
            terms = cls(**{**content, "exchange": exchange})
            given = dataclasses.asdict(terms)
        except ConfigError as error:
            raise ConfigError(f"the run's terms are not possible: {error}") from error
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise ConfigError(f"the run's terms cannot be read ({error}): update the older side.") from error
        if given["exchange"].keys() - LATER.keys() != content["exchange"].keys() - LATER.keys():
            raise ConfigError("the run's terms leave options out: update the older side.")
        # An option that means something else here, or nothing, would draw other coordinates unnoticed.
        options = {**given, **given["exchange"]}
        del options["exchange"]
        try:
            if chosen(exchange) != exchange:
                raise ConfigError("they leave a choice open (schedule, mix).")
            RunConfig.from_mapping(options)
        except ConfigError as error:
            raise ConfigError(f"the run's terms are not possible: {error}") from error
        return terms


def run_identity(terms: Terms) -> bytes:
    """Return 16 bytes that differ between runs: from the run's name and everything it agrees on."""
    return hashlib.sha256(b"wash-fl run 1" + terms.to_json().encode()).digest()[:RUN_BYTES]
