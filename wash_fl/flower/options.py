"""What a strategy is told about its run."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wash_fl.config import ExchangeConfig, FinishConfig, RunConfig
from wash_fl.core.robust import FINAL_AVERAGES
from wash_fl.errors import RunError
from wash_fl.protocol.options import FleetOptions, ServerOptions
from wash_fl.protocol.presence import FEWEST


@dataclass(frozen=True, kw_only=True)
class StrategyOptions(FleetOptions):
    """Options of a :class:`~wash_fl.flower.strategy.WashStrategy`: those of its fleet, and of its run.

    Attributes
    ----------
    members : int
        Size of the ensemble. Clients are members by their ``partition-id``, 0 to members - 1.
    local_steps : int
        Optimizer steps of each member per round.
    local_seconds : float
        If not 0, seconds of training per round instead; such a run does not repeat hash for hash.
    exchange : ExchangeConfig
        What is exchanged, and how it is mixed; :func:`wash_fl.core.recipes.exchange_of` makes it of a recipe.
        By default that of the recipe for data that belongs to the clients.
    seed : int
        The run seed.
    run_name : str
        Tells runs apart; empty makes one from the time.
    journal : Path, optional
        File in which decisions are recorded before they are heard of. A run that is started again with the
        same settings, ``run_name`` and file goes on where it was. In memory by default.
    recalibrate : bool
        Re-estimate the averaged model's BatchNorm statistics on the clients' data.
    final_average : str
        How the members' final models become one: ``mean``, ``trimmed`` or ``median``.
    calibration_examples : int
        No member's BatchNorm statistics count for more examples than this.
    keep_members : bool
        Leave the members' state on the clients after the run, until :meth:`dismiss`. With a journal, save
        the result first and dismiss the members then, and nothing can be lost between the two.
    classes : sequence of str
        The names of the classes, in the order of the model's outputs. A client whose Participant names others
        is refused.
    averaged_buffers : sequence of str
        Names of buffers, or patterns of them such as ``"ema.*"``, of which the members' mean is to be taken.
        By default it is of parameters and of BatchNorm's and InstanceNorm's statistics; what else differs
        between members is that of one of them.

    Raises
    ------
    RunError
        If there are too few members, more are waited for than there are, or there is no such average.
    """

    members: int
    local_steps: int
    local_seconds: float = 0.0
    exchange: ExchangeConfig | None = None
    seed: int = 0
    run_name: str = ""
    journal: Path | None = None
    recalibrate: bool = True
    final_average: str = "mean"
    calibration_examples: int = FinishConfig.calibration_examples
    keep_members: bool = False
    classes: Sequence[str] = ()
    averaged_buffers: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.members < FEWEST or not 0 <= self.min_members <= self.members:
            raise RunError(
                f"members = {self.members} with min_members = {self.min_members}: at least 2 members "
                "exchange, and no more can be waited for than there are."
            )
        if self.final_average not in FINAL_AVERAGES:
            raise RunError(
                f"final_average = {self.final_average!r} is not allowed: it is one of "
                f"{', '.join(FINAL_AVERAGES)}."
            )

    @classmethod
    def of(cls, config: RunConfig, **others: object) -> "StrategyOptions":
        """Return the options of a run, and ``others`` that it does not have."""
        training, fleet, finish = config.training, config.fleet, config.finish
        return cls(
            members=training.members,
            local_steps=training.local_steps,
            local_seconds=training.local_seconds,
            exchange=config.exchange,
            seed=training.seed,
            min_members=fleet.min_members,
            start_timeout=fleet.start_timeout,
            deadline_spread=fleet.deadline_spread,
            give_up_after=fleet.give_up_after,
            outlier_factor=fleet.outlier_factor,
            exchange_deadline=fleet.exchange_deadline,
            fallback=fleet.fallback == "round",
            evaluate_every=finish.evaluate_every,
            recalibrate=finish.batchnorm == "clients",
            final_average=finish.final_average,
            calibration_examples=finish.calibration_examples,
            **others,  # type: ignore[arg-type]
        )

    def server(self, *, initial: str, timeout: float, recalibrate: bool) -> ServerOptions:
        """Return what the server decides by."""
        return ServerOptions(
            initial=initial,
            timeout=timeout,
            recalibrate=recalibrate,
            server=secrets.token_hex(8),
            **self.shared(),
        )
