"""A small fleet in one process: real ClientApp, real strategy, no Flower processes."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result
from torch import nn

from wash_fl.clock import Clock
from wash_fl.config import ExchangeConfig
from wash_fl.core import philox
from wash_fl.flower import records
from wash_fl.flower.client import Participant, Round, member_index, participant
from wash_fl.flower.in_process import Deliver, Fault, InProcessGrid, no_fault
from wash_fl.flower.strategy import WashStrategy
from wash_fl.flower.watching import Watcher
from wash_fl.member.parameters import model_layout
from wash_fl.member.slots import optimizer_slots
from wash_fl.member.state import state_path
from wash_fl.protocol.commands import RoundEnded

MEMBERS = 4


def make_model(hidden: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 3))


def own_weights(model: nn.Module, member: int) -> torch.Tensor:
    """Weights that differ between members at every coordinate."""
    size = sum(each.numel() for each in model.parameters())
    words = philox.words(5, "own", size, member=member)
    return torch.from_numpy((words >> np.uint64(40)).astype(np.float32) / 2.0**24 + member)


class FastClock(Clock):
    """A clock that only moves when somebody waits, and then at once."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Fleet:
    """Members that take on weights of their own in the first round and then keep what they hold.

    Without training in between, every value that was there after the first round must be there at the end.
    """

    folder: Path
    members: int = MEMBERS
    exchange: ExchangeConfig = field(
        default_factory=lambda: ExchangeConfig(p=0.5, mix="shuffle", schedule="constant")
    )
    models: Callable[[int], nn.Module] = lambda member: make_model()
    fault: Callable[[int, Message, Deliver], list[Message]] = no_fault
    calibration: bool = True
    rounds: int = 6
    min_members: int = 0
    evaluate_every: int = 0
    after_training: Callable[[nn.Module, int, Round], None] = lambda model, member, now: None
    trained: list[tuple[int, int]] = field(default_factory=list)
    reports: list[RoundEnded] = field(default_factory=list)
    on_round: Callable[[RoundEnded], None] = lambda report: None
    clock: Clock = field(default_factory=FastClock)
    collected: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.app = ClientApp()
        participant(self.app)(self.bring)
        self.grid = InProcessGrid(
            self.app, self.members, {"state-dir": str(self.folder / "state")}, fault=self.fault
        )

    def bring(self, context: Context) -> Participant:
        member = member_index(context)
        model = self.models(member)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def train(now: Round) -> dict[str, float]:
            self.trained.append((member, now.number))
            if not any(number < now.number for who, number in self.trained if who == member):
                torch.nn.utils.vector_to_parameters(own_weights(model, member), model.parameters())
            self.after_training(model, member, now)
            return {"loss": float(member)}

        calibration = (lambda: [torch.ones(8, 6) * (member + 1)]) if self.calibration else None
        return Participant(
            model=model,
            optimizer=optimizer,
            train=train,
            evaluate=lambda: {"accuracy": 0.5},
            calibration=calibration,
        )

    def strategy(self, **options: object) -> WashStrategy:
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        slots = optimizer_slots(optimizer) if self.exchange.exchange_optimizer else ()

        def on_round(report: RoundEnded) -> None:
            self.reports.append(report)
            self.on_round(report)

        return WashStrategy(
            model_layout(model, slots),
            members=self.members,
            exchange=self.exchange,
            **{
                "local_steps": 1,
                "seed": 3,
                "run_name": "test",
                "min_members": self.min_members,
                "start_timeout": 1.0,
                "evaluate_every": self.evaluate_every,
                "watcher": Watcher(on_round=on_round, on_member=self.collected.__setitem__),
                "clock": self.clock,
                **options,
            },  # type: ignore[arg-type]
        )

    def run(self, **options: object) -> Result:
        return self.start(self.strategy(**options))

    def start(self, strategy: WashStrategy, grid: Grid | None = None, timeout: float = 1.0) -> Result:
        # In place: a variable would hold the initial model for the whole run.
        return strategy.start(
            grid or self.grid, ArrayRecord(self.initial()), num_rounds=self.rounds, timeout=timeout
        )

    def initial(self) -> OrderedDict[str, torch.Tensor]:
        return OrderedDict(make_model().state_dict())

    def values(self) -> np.ndarray:
        """All exchanged values of the collected members, shape (members, size)."""
        names = [name for name, _ in make_model().named_parameters()]
        return np.stack(
            [
                np.concatenate([weights[name].reshape(-1) for name in names])
                for _, weights in sorted(self.collected.items())
            ]
        )

    def own_values(self) -> np.ndarray:
        """What the members hold after their first round, before any exchange."""
        return np.stack([own_weights(make_model(), member).numpy() for member in range(self.members)])

    def state_files(self) -> list[Path]:
        return sorted((self.folder / "state").rglob("*.safetensors"))


def is_train(message: Message) -> bool:
    return message.metadata.message_type == records.TRAIN


def round_of(message: Message) -> int:
    return int(message.content.config_records[records.RECORD]["round"])  # type: ignore[arg-type]


def random_faults(seed: int) -> Fault:
    """Lose requests, lose replies, raise, duplicate, and repeat messages, by member and round."""

    def fault(member: int, request: Message, deliver: Deliver) -> list[Message]:
        if not is_train(request):
            return deliver(request)
        draw = int(philox.words(seed, "fault", 1, index=round_of(request), member=member)[0] % 10)
        if draw == 0:
            return []
        if draw == 1:
            deliver(request)
            return []
        if draw == 2:
            deliver(request)
            return [Message(Error(2, "Traceback\nRuntimeError: planted"), reply_to=request)]
        if draw == 3:
            return deliver(request) * 2
        if draw == 4:
            deliver(request)
        return deliver(request)

    return fault


__all__ = ["Fleet", "is_train", "make_model", "own_weights", "random_faults", "round_of", "state_path"]
