"""Every option of a run, once: types, defaults, limits and help in frozen dataclasses.

The command line, a TOML file and Flower's ``[tool.flwr.app.config]`` are all read into the same
:class:`RunConfig`; nothing else in the package has defaults of its own for these options.
"""

import codecs
import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wash_fl.errors import ConfigError
from wash_fl.option import AUTO, LARGEST_INTEGER, Checked, Value, option

MOST_MEMBERS = 100_000
"""More is a slip of the finger, and takes minutes only to divide the data."""

FEWEST_ROBUST = 5
"""Members of a run whose exchanges take a robust mean: of fewer it is the mean of two."""

LONGEST_NAME = 255
"""Bytes of a file's name on the usual file systems."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig(Checked):
    """What is learned, and from which part of the data by whom."""

    task: str = option(
        "digits",
        "digits, fashion-mnist, smartwatch, cifar10, cifar100, or your own: a module name or a path to a .py "
        "file",
    )
    model: str = option(
        "default",
        "default (the task's own), small-cnn, resnet20, resnet18, resnet18-3x3, vgg16 or mobilenet-v3-small",
    )
    division: str = option(
        "shared",
        "How examples are divided: every member all of them (the paper), equal shards, or skewed labels",
        choices=("shared", "iid", "dirichlet"),
    )
    alpha: float = option(
        0.5, "Concentration of the dirichlet division; smaller is more skewed", above=0, hint="Try 0.5."
    )
    augment: str = option(
        "none",
        "grid: each member draws its own mixup, label smoothing, CutMix and erasing (the paper's setting)",
        choices=("none", "grid"),
    )
    train_examples: int = option(0, "Use only so many training examples; 0 uses all", low=0)
    test_examples: int = option(0, "Use only so many test examples; 0 uses all", low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(Checked):
    """How each member learns."""

    seed: int = option(0, "The run seed: every random draw is a function of it", low=0, high=LARGEST_INTEGER)
    members: int = option(
        4,
        "Members of the ensemble, one per client",
        low=2,
        high=MOST_MEMBERS,
        hint="One member has nobody to exchange with.",
    )
    rounds: int = option(30, "Rounds; on the round plane one exchange each", low=1)
    local_steps: int = option(24, "Optimizer steps of each member per round", low=1)
    local_seconds: float = option(
        0.0,
        "Train about so many seconds per round, so that fast and slow devices finish together (the first "
        "round takes local-steps); 0 takes local-steps in every round",
        low=0,
    )
    batch_size: int = option(32, "Examples per optimizer step", low=1)
    optimizer: str = option("sgd", "The members' optimizer", choices=("sgd", "adam", "adamw"))
    learning_rate: float = option(0.1, "Learning rate at the first step", above=0)
    learning_rate_end: float = option(1e-4, "Learning rate after the last step (per-step cosine)", low=0)
    momentum: float = option(0.9, "Momentum of sgd", low=0, high=1)
    weight_decay: float = option(1e-4, "Weight decay", low=0)
    device: str = option(
        "cpu", "Where members train; auto takes what is there", choices=("cpu", "cuda", "mps", "auto")
    )
    memory_format: str = option(
        "contiguous",
        "How convolutions' weights and activations lie in memory: channels-last trains the image models here "
        "up to 1.6 times as fast on a CPU, and rounds otherwise",
        choices=("contiguous", "channels-last"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExchangeConfig(Checked):
    """What travels between members, and how it is mixed.

    A recipe decides the options whose default is ``auto``, and those that are given win over it.
    """

    recipe: str = option(
        AUTO,
        "A named set of these options (wash-fl recipes explains them); auto: frugal where data belongs to "
        "the devices, wash where all members see the same; none: plain defaults",
        choices=(AUTO, "paper", "wash", "pairs", "frugal", "none"),
    )
    p: float = option(
        0.1,
        "Probability that a parameter takes part in an exchange, before the schedule",
        low=0,
        high=1,
        hint="p is a probability; try 0.1.",
        recipe=True,
    )
    p_per: str = option(
        "exchange",
        "What p refers to: one exchange, or one optimizer step (then 1-(1-p)^local_steps per exchange)",
        choices=("exchange", "step"),
    )
    schedule: str = option(
        "size-aware",
        "p over depth: size-aware (equal counts in every tensor), decreasing (the paper), constant, or "
        "increasing",
        choices=("decreasing", "constant", "increasing", "size-aware"),
        recipe=True,
    )
    timing: str = option(
        "steady", "p over the run: steady, or falling to 0 as a cosine", choices=("steady", "cosine")
    )
    warmup: int = option(0, "Exchanges at the start over which p rises linearly to its value", low=0)
    stop_after: int = option(0, "The last exchange that moves anything; 0 exchanges to the end", low=0)
    mix: str = option(
        AUTO,
        "What becomes of slices: shuffle (WASH: values change places) or average; auto averages, unless "
        "another option is a shuffle's",
        choices=(AUTO, "shuffle", "average"),
        recipe=True,
    )
    topology: str = option(
        AUTO,
        "Among whom: pairs (slices swap, or both members take the mean), permutation (a shuffle per "
        "coordinate, the paper), all (an average); auto is pairs to shuffle, all to average",
        choices=(AUTO, "pairs", "permutation", "all"),
        recipe=True,
    )
    average_from: float = option(
        0.0,
        "Part of the run's exchanges after which a shuffle's exchanges average instead, such as 0.75; 0 "
        "never does",
        low=0,
        below=1,
        recipe=True,
    )
    run_length: int = option(
        1,
        "Consecutive values that are drawn together, where a tensor has enough of them: longer runs are less "
        "work, and as good for averages",
        choices=(1, 16, 64),
        recipe=True,
    )
    exchange_optimizer: bool = option(False, "WASH+Opt: optimizer state travels with the values")
    dtype: str = option(
        "float32",
        "How offered values are encoded; what a smaller one leaves out stays with the sender, so the mean is "
        "not disturbed",
        choices=("float32", "bfloat16", "float16", "int8", "int4", "int3", "int2"),
        recipe=True,
    )
    exchange_plane: str = option(
        "round",
        "How slices travel: round (inside Flower's messages, one exchange per round) or stream (over gRPC, "
        "every few optimizer steps)",
        choices=("round", "stream"),
        recipe=True,
    )
    every: int = option(1, "Optimizer steps between two exchanges on the stream plane; 1 is the paper", low=1)
    overlap: bool = option(False, "On the stream plane, train on while a slice is on its way")
    reference: str = option(
        AUTO,
        "What an average's messages hold: values, or differences to an anchor that all agree on, which need "
        "half the bits, both ways; auto: values, unless there is an outer step",
        choices=(AUTO, "values", "anchor"),
        recipe=True,
    )
    outer_learning_rate: float = option(
        1.0,
        "How far the mean difference moves the anchor; 1 without outer momentum is the mean",
        above=0,
        recipe=True,
    )
    outer_momentum: float = option(
        0.0,
        "Nesterov momentum of the anchor, kept by the server; try 0.5 with a rate of 0.7",
        low=0,
        below=1,
        recipe=True,
    )
    robust: str = option(
        "none",
        "How an average over all of five members or more takes its mean, at each coordinate: the mean, the "
        "mean without the largest and the smallest quarter (one at least), or the median",
        choices=("none", "trimmed", "median"),
    )

    @property
    def anchored(self) -> bool:
        """Whether differences to an anchor travel."""
        return self.reference == "anchor"

    @property
    def streams(self) -> bool:
        """Whether members exchange over streams while they train."""
        return self.exchange_plane == "stream"

    @property
    def members_average(self) -> bool:
        """Whether each member takes the mean itself, of what it offered and what its partner did."""
        return self.mix == "average" and self.topology == "pairs"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = f"average-from = {self.average_from:g}" if self.mix == AUTO else f"mix = {self.mix}"
        if self.mix == AUTO:
            shuffles = self.topology == "permutation" or self.average_from
            object.__setattr__(self, "mix", "shuffle" if shuffles else "average")
        if self.topology == AUTO:
            object.__setattr__(self, "topology", "all" if self.mix == "average" else "pairs")
        if self.reference == AUTO:
            outer_step = self.outer_learning_rate != 1 or self.outer_momentum
            object.__setattr__(self, "reference", "anchor" if outer_step else "values")
        if self.mix == "average" and self.topology == "permutation":
            raise ConfigError(
                "topology = permutation is how a shuffle permutes, and mix = average permutes nothing: use "
                "topology = pairs or all, or mix = shuffle."
            )
        if self.mix == "average" and self.average_from:
            raise ConfigError(
                f"average-from = {self.average_from:g} says when a shuffle begins to average, and mix = "
                "average does from the first exchange: leave average-from out, or use mix = shuffle."
            )
        if self.topology == "all" and self.mix == "shuffle":
            raise ConfigError(
                f"topology = all is of averages, and {given} is a shuffle: use topology = pairs or "
                "permutation, or mix = average without average-from."
            )
        if self.robust != "none" and (self.mix != "average" or self.topology != "all"):
            raise ConfigError(
                f"robust = {self.robust} is of averages over all, and other options are a shuffle's or of "
                "pairs: use mix = average, topology = all (recipe = frugal), or leave it out."
            )
        if self.anchored:
            if self.mix == "shuffle" or self.topology != "all":
                raise ConfigError(
                    "reference = anchor needs averages over all, from the first exchange on, and other "
                    "options are a shuffle's or of pairs: use mix = average, topology = all, or leave it out."
                )
            return
        for name, none in (("outer_learning_rate", 1.0), ("outer_momentum", 0.0)):
            if getattr(self, name) != none:
                raise ConfigError(
                    f"{name.replace('_', '-')} = {getattr(self, name):g} has no meaning without an anchor: "
                    "add reference = anchor, or leave it out."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishConfig(Checked):
    """How the members become one model, and the model one file."""

    batchnorm: str = option(
        "clients",
        "BatchNorm statistics of the averaged model: the members' average, or re-estimated on the clients' "
        "data or on the server's",
        choices=("average", "clients", "server"),
    )
    final_average: str = option(
        "mean",
        "How the members' final models become one, value by value: their mean, the mean without the largest "
        "and the smallest quarter (one at least), or the median",
        choices=("mean", "trimmed", "median"),
    )
    calibration_examples: int = option(2048, "Examples per re-estimation, each client its own", low=1)
    evaluate_every: int = option(5, "Rounds between evaluations of each member; 0 only at the end", low=0)
    tolerance: float = option(
        1e-4, "Largest difference between the ONNX file's outputs and PyTorch's that is accepted", above=0
    )
    test_vectors: int = option(
        8,
        "Test inputs that the ONNX file carries with the right answers, so that a device can check itself; "
        "whoever has the file can read them; 0 for none",
        low=0,
        high=8,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetConfig(Checked):
    """Where a run keeps its files, and how long it waits for its members."""

    run_dir: str = option("runs", "Folder in which each run makes a folder of its own")
    run_name: str = option("", "Name of the run's folder; empty makes one from the task and the time")
    state_dir: str = option(
        "", "Where a client keeps its member; empty takes $WASH_FL_STATE or the user's own"
    )
    min_members: int = option(
        0, "Members without whom a round does not start; 0 means all at the beginning, any 2 later", low=0
    )
    start_timeout: float = option(
        120.0, "Seconds to wait for the clients to connect, or a lost one to return", above=0
    )
    round_timeout: float = option(3600.0, "Seconds to wait for the members in one round", above=0)
    exchange_deadline: float = option(
        10.0,
        "Seconds an exchange on the stream plane waits for the members that are expected in that time; who "
        "is late keeps its own values",
        above=0,
    )
    fallback: str = option(
        "round",
        "What becomes of a run on the stream plane whose members do not reach the stream port: round goes on "
        "with one exchange per round, in Flower's messages; none ends it",
        choices=("round", "none"),
    )
    deadline_spread: float = option(
        6.0,
        "A round waits for the median of what members took lately plus so many times their spread, never "
        "longer than round-timeout; 0 always waits that long",
        low=0,
    )
    give_up_after: int = option(
        20, "Rounds in a row that a member may be away before the run goes on without it; 0 never", low=0
    )
    outlier_factor: float = option(
        3.0,
        "Set a member aside whose values, in all or in one tensor, are so many times farther from the "
        "others' than these spread; 0 never does",
        low=0,
    )
    keep_members: bool = option(False, "Leave the members' state on the clients after the run")
    save_members: bool = option(
        False, "Keep each member's model in the run's folder: wash-fl export --ensemble needs them"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run_name and (advice := _name_advice(self.run_name)):
            shown = self.run_name if len(self.run_name) <= 40 else f"{self.run_name[:40]}..."
            raise ConfigError(f"run-name = {shown!r} is not allowed: {advice}, or leave it empty.")


def _name_advice(name: str) -> str:
    """Return what to do about a name that a folder cannot or should not have; empty for any other."""
    if "/" in name or name in (".", ".."):
        return "use a name without slashes that is neither . nor .."
    if not name.isprintable() or not name.strip():
        return "use a name that can be seen, without line breaks and other control characters"
    if len(name.encode()) > LONGEST_NAME:
        return f"use a name of at most {LONGEST_NAME} bytes"
    return ""


GROUPS: dict[str, type] = {
    "task": TaskConfig,
    "training": TrainingConfig,
    "exchange": ExchangeConfig,
    "finish": FinishConfig,
    "fleet": FleetConfig,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All options of one run, in groups.

    Attributes
    ----------
    open : frozenset of str
        The options that a recipe is still to decide (:func:`wash_fl.core.recipes.resolve`); until then they
        have their plain defaults.

    Examples
    --------
    >>> config = RunConfig.from_mapping({"members": 5, "p": 0.01})
    >>> config.training.members, config.exchange.p
    (5, 0.01)
    """

    task: TaskConfig = TaskConfig()
    training: TrainingConfig = TrainingConfig()
    exchange: ExchangeConfig = ExchangeConfig()
    finish: FinishConfig = FinishConfig()
    fleet: FleetConfig = FleetConfig()
    open: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        training, fleet, exchange = self.training, self.fleet, self.exchange
        steps = training.rounds * training.local_steps
        for name, unused in (("every", 1), ("overlap", False)):
            value = getattr(exchange, name)
            if value != unused and not exchange.streams and "exchange-plane" not in self.open:
                raise ConfigError(
                    f"{name} = {value} has no meaning on the round plane, which exchanges once per round: "
                    "add exchange-plane = stream, or leave it out."
                )
        if exchange.streams and exchange.every > steps:
            raise ConfigError(
                f"every = {exchange.every} is more than the run's {steps} optimizer steps: nothing would be "
                "exchanged; lower every."
            )
        if fleet.min_members > training.members:
            raise ConfigError(
                f"min-members = {fleet.min_members} is more than members = {training.members}: "
                "lower min-members or raise members."
            )
        if self.exchange.robust != "none" and training.members < FEWEST_ROBUST:
            raise ConfigError(
                f"robust = {self.exchange.robust} needs five members or more, and members = "
                f"{training.members}: raise members, or leave robust out."
            )
        if training.learning_rate_end > training.learning_rate:
            raise ConfigError(
                f"learning-rate-end = {training.learning_rate_end:g} is above "
                f"learning-rate = {training.learning_rate:g}: the rate falls over the run; lower it."
            )

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> "RunConfig":
        """Read options by name (``local-steps`` or ``local_steps``), the rest at their defaults.

        Those that a recipe decides stay open unless they have a value here, or ``recipe`` is ``none``.

        Raises
        ------
        ConfigError
            If a name is unknown or a value is of the wrong type or outside its limits.
        """
        known = fields()
        groups: dict[str, dict[str, Value]] = {name: {} for name in GROUPS}
        for given, value in options.items():
            key = given.replace("_", "-")
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]}?" if near else f"Known options: {', '.join(known)}."
                raise ConfigError(f"unknown option {given!r}. {hint}")
            if value != AUTO or not known[key].metadata["recipe"]:
                groups[_GROUP_OF[key]][known[key].name] = value
        read = {name: GROUPS[name](**values) for name, values in groups.items()}
        decided = {key for key in DECIDED_BY_RECIPES if known[key].name not in groups["exchange"]}
        none = read["exchange"].recipe == "none"
        return cls(**read, open=frozenset() if none else frozenset(decided))

    @classmethod
    def from_toml(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> "RunConfig":
        """Read a TOML file of options, flat or in tables named like the groups; ``overrides`` win."""
        return cls.from_mapping(read_options(path) | dict(overrides or {}))

    def to_mapping(self) -> dict[str, Value]:
        """Return every option by its kebab-case name; the inverse of :meth:`from_mapping`."""
        values = {key: getattr(getattr(self, _GROUP_OF[key]), spec.name) for key, spec in fields().items()}
        return values | dict.fromkeys(self.open, AUTO)


def read_options(path: Path) -> dict[str, Any]:
    """Return the options of a TOML file by name, flat, as they are written there.

    Raises
    ------
    ConfigError
        If it cannot be read, or gives an option twice.
    """
    content = _read_toml(path)
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if key in GROUPS and key not in _GROUP_OF and not isinstance(value, dict):
            raise ConfigError(
                f"{path} gives {key} a value, and it is a table: write [{key}] above its options."
            )
        table = value if key in GROUPS and isinstance(value, dict) else {key: value}
        if twice := sorted(flat.keys() & table.keys()):
            raise ConfigError(f"{path} gives {', '.join(twice)} twice: leave one of them out.")
        flat.update(table)
    return flat


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}.") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path} is UTF-16 text, and TOML is UTF-8: save it as UTF-8.")
    try:
        # Editors on Windows begin UTF-8 with a byte-order mark, which TOML does not know.
        return tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML, for it is no UTF-8 text: save it as UTF-8.") from error
    except ValueError as error:  # not only TOMLDecodeError: a number may have too many digits for Python
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error


def fields() -> dict[str, dataclasses.Field[Any]]:
    """Return the declaration of every option by its kebab-case name, group after group."""
    return {
        spec.name.replace("_", "-"): spec for group in GROUPS.values() for spec in dataclasses.fields(group)
    }


_GROUP_OF: dict[str, str] = {
    spec.name.replace("_", "-"): name for name, group in GROUPS.items() for spec in dataclasses.fields(group)
}

DECIDED_BY_RECIPES: frozenset[str] = frozenset(
    key for key, spec in fields().items() if spec.metadata["recipe"]
)
