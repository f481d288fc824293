"""What happens to the n-th run of a campaign: a pure function of the campaign's seed and the run's number."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from wash_fl.config import FleetConfig

MEMBERS: Final = 3
ROUND_TIMEOUT: Final = 180.0
START_TIMEOUT: Final = 300.0

QUIET_SECONDS: Final = 300.0
"""What a run takes at most, in which nothing happens."""

HEARTBEAT_SECONDS: Final = 60.0
"""After which Flower misses who does not send any."""

SUPERLINK_SECONDS: Final = 300.0
"""How long `wash-fl serve` waits for a SuperLink that is away."""

MOST: Final = 3
"""Disturbances of a run."""

COMMON: Final[Mapping[str, Any]] = {
    "members": MEMBERS,
    "train-examples": 200,
    "test-examples": 100,
    "p": 0.3,
    "evaluate-every": 0,
    "batchnorm": "server",
    "keep-members": True,
    "round-timeout": ROUND_TIMEOUT,
    "start-timeout": START_TIMEOUT,
}

PLANES: Final[Mapping[str, Mapping[str, Any]]] = {
    "round": {"rounds": 3, "local-steps": 2},
    "stream": {
        "rounds": 2,
        "local-steps": 8,
        "exchange-plane": "stream",
        "every": 1,
        "exchange-deadline": 15.0,
    },
}

RECIPES: Final[Sequence[Mapping[str, Any]]] = (
    {"recipe": "frugal"},
    {"recipe": "wash"},
    {"recipe": "pairs"},
    {"recipe": "none", "mix": "shuffle", "topology": "permutation"},
)


class Kind(StrEnum):
    """What may happen."""

    KILL = "kill"  # SIGKILL; SuperNodes and the SuperLink are started again, as systemd would
    PAUSE = "pause"  # SIGSTOP, and later SIGCONT
    PARTITION = "partition"  # nothing gets through to a device, nor from it
    MOVE = "move"  # a device gets another address, under the feet of its SuperNode
    RETURN = "return"  # a SuperNode stops, and comes back at another address
    FULL = "full disk"  # no room for a member's state
    READ_ONLY = "read-only disk"  # nor may it be written
    FLIP = "flip"  # a bit of a file, whose reader is killed so that it is read again


NETWORK: Final = (Kind.PARTITION, Kind.MOVE, Kind.RETURN)
DISK: Final = (Kind.FULL, Kind.READ_ONLY)

PROCESSES: Final = ("superlink", "serverapp", "superexec", "supernode", "clientapp", "superexec of a node")
SERVER_FILES: Final = ("journal.sqlite*", "config.toml", "metrics.jsonl", "exchanges.jsonl")
MEMBER_FILES: Final = ("state.safetensors", "state.safetensors.previous", "*")
LOGS: Final = "exchanges.*"
"""What a member keeps besides, on the stream plane."""


@dataclass(frozen=True)
class Disturbance:
    """One thing that happens.

    Attributes
    ----------
    kind : Kind
        What.
    target : str
        To which process, or file; empty for what concerns a whole device.
    member : int
        On whose device; -1 on the server.
    after : int
        After which round; 0 when the run has begun.
    wait : float
        Seconds after that.
    seconds : float
        How long it lasts, where it does not last for good.
    """

    kind: Kind
    target: str
    member: int
    after: int
    wait: float
    seconds: float

    def __str__(self) -> str:
        where = "server" if self.member < 0 else f"member {self.member}"
        target = f" {self.target}" if self.target else ""
        lasts = f" for {self.seconds:.0f} s" if self.seconds else ""
        return f"{self.kind}{target} ({where}) {self.wait:.1f} s after round {self.after}{lasts}"


@dataclass(frozen=True)
class Plan:
    """A run of a campaign.

    Attributes
    ----------
    number : int
        Which.
    plane : str
        On which its slices travel.
    options : mapping of str to Any
        The run's.
    disturbances : tuple of Disturbance
        What happens.
    """

    number: int
    plane: str
    options: Mapping[str, Any]
    disturbances: tuple[Disturbance, ...]

    @property
    def limit(self) -> float:
        """Seconds within which the run must end by itself, by all that is documented of how it waits.

        For each disturbance a node may be waited for, and then one round, or a whole model that is asked for
        twice, to the end.
        """
        return QUIET_SECONDS + sum(
            each.wait
            + each.seconds
            + HEARTBEAT_SECONDS
            + START_TIMEOUT
            + 2 * ROUND_TIMEOUT
            + (SUPERLINK_SECONDS if each.target == "superlink" else 0.0)
            for each in self.disturbances
        )


def plan_of(seed: int, number: int, kinds: Sequence[Kind] = tuple(Kind)) -> Plan:
    """Return the n-th run of a campaign.

    Parameters
    ----------
    seed : int
        Of the campaign.
    number : int
        Which run, from 0.
    kinds : sequence of Kind
        What can be made to happen here. A run in which something else would happen has less to bear.
    """
    generator = random.Random(f"wash-fl campaign {seed} {number}")
    plane = generator.choice(sorted(PLANES))
    options = {**COMMON, **PLANES[plane], **generator.choice(RECIPES), "seed": generator.randrange(1000)}
    # Rounds wait to the end for a member that does not answer; or for as long as members usually take.
    options["deadline-spread"] = generator.choice((0.0, FleetConfig.deadline_spread))
    count = generator.randint(1, MOST)
    candidates = [_disturbance(generator, plane, options["rounds"]) for _ in range(count)]
    happening = tuple(each for each in candidates if each.kind in kinds)
    return Plan(number, plane, options, happening)


def _disturbance(generator: random.Random, plane: str, rounds: int) -> Disturbance:
    kind = generator.choice(tuple(Kind))
    member = generator.randrange(MEMBERS)
    after = generator.randrange(rounds + 1)
    wait, seconds = 6.0 * generator.random(), 0.0
    target = ""
    if kind in (Kind.KILL, Kind.PAUSE):
        target = generator.choice(PROCESSES)
        if target in ("superlink", "serverapp", "superexec"):
            member = -1
        target = target.removesuffix(" of a node")
    elif kind is Kind.FLIP:
        if generator.random() < 0.5:
            target, member = generator.choice(SERVER_FILES), -1
        else:
            target = generator.choice((*MEMBER_FILES, LOGS) if plane == "stream" else MEMBER_FILES)
    if kind is Kind.PAUSE:
        seconds = generator.uniform(20.0, 90.0)
    elif kind in (Kind.PARTITION, *DISK):
        seconds = generator.uniform(5.0, 60.0)
    return Disturbance(kind, target, member, after, wait, seconds)
