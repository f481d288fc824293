"""A fleet that exchanges over real streams, in one process: its clients run in threads."""

import ast
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Result

from wash_fl.config import ExchangeConfig
from wash_fl.faults import points
from wash_fl.faults.plan import FaultPlan
from wash_fl.flower.client import Participant, Round, member_index, participant
from wash_fl.flower.in_process import InProcessGrid, give_id
from wash_fl.flower.strategy import WashStrategy
from wash_fl.flower.watching import Watcher
from wash_fl.member.parameters import model_layout
from wash_fl.protocol.commands import RoundEnded
from wash_fl.stream.reports import ExchangeReport

from fleet import make_model, own_weights

_parsing = threading.Lock()
_literal_eval = ast.literal_eval


def _literal_eval_alone(node_or_string: Any) -> Any:
    with _parsing:
        return _literal_eval(node_or_string)


# NumPy reads an array's header with it, and Python 3.11 counts the depth of a tree that it parses once for
# all threads: members that read arrays at once fail with "AST constructor recursion depth mismatch"
# (python/cpython#106905). A real member is a process of its own.
ast.literal_eval = _literal_eval_alone


class ConcurrentGrid(InProcessGrid):
    """Each node works on one message at a time, and all nodes at once."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self._busy = {node: threading.Lock() for node in self._members}

    def push_messages(self, messages):
        ids = []
        for message in messages:
            message_id = f"message-{next(self._ids)}"
            give_id(message, message_id)
            threading.Thread(target=self._work, args=(message_id, message), daemon=True).start()
            ids.append(message_id)
        return ids

    def _work(self, message_id, message) -> None:
        node = message.metadata.dst_node_id
        with self._busy[node]:
            self._replies[message_id] = self.fault(self._members[node], message, self._deliver)


@dataclass
class StreamFleet:
    """Members that take on weights of their own in the first round, and then step without a gradient.

    So every value that was there when the first exchange began must be there at the end.
    """

    folder: Path
    members: int = 4
    rounds: int = 2
    local_steps: int = 6
    exchange: ExchangeConfig = field(
        default_factory=lambda: ExchangeConfig(
            p=0.5, mix="shuffle", schedule="constant", exchange_plane="stream"
        )
    )
    plan: str = ""
    min_members: int = 0
    timeout: float = 60.0
    before_step: Callable[[int, int], None] = lambda member, step: None
    learn: bool = False
    forward: bool = False
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None
    rates: list[tuple[int, int, float]] = field(default_factory=list)
    reports: list[RoundEnded] = field(default_factory=list)
    exchanges: list[ExchangeReport] = field(default_factory=list)
    collected: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    trained: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.faults = FaultPlan.parse(self.plan)
        self.app = ClientApp()
        participant(self.app)(self.bring)
        self.grid = ConcurrentGrid(self.app, self.members, {"state-dir": str(self.folder / "state")})
        self._making = threading.Lock()

    def bring(self, context: Context) -> Participant:
        member = member_index(context)
        with self._making:
            model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        schedule = None if self.schedule is None else self.schedule(optimizer)

        def train(now: Round) -> dict[str, float]:
            if not any(who == member for who, _, _ in self.trained):
                torch.nn.utils.vector_to_parameters(own_weights(model, member), model.parameters())
            for step in range(now.first_step, now.first_step + now.steps):
                self.trained.append((member, now.number, step))
                self.before_step(member, step)
                if self.learn:
                    for each in model.parameters():
                        each.grad = torch.full_like(each, float(member + 1) / (step + 1))
                if self.forward:
                    model[1](torch.full((4, 5), float(step)) + torch.arange(4.0)[:, None])
                self.rates.append((member, step, optimizer.param_groups[0]["lr"]))
                optimizer.step()
                if schedule is not None:
                    schedule.step()
            return {"loss": float(member)}

        state = {} if schedule is None else {"schedule": schedule}
        return Participant(model=model, optimizer=optimizer, train=train, state=state)

    def strategy(self, **options: object) -> WashStrategy:
        with self._making:
            layout = model_layout(make_model())
        return WashStrategy(
            layout,
            members=self.members,
            local_steps=self.local_steps,
            exchange=self.exchange,
            **{
                "seed": 3,
                "run_name": "test",
                "min_members": self.min_members,
                "start_timeout": 5.0,
                "recalibrate": False,
                "watcher": Watcher(
                    on_round=self.reports.append,
                    on_exchange=self.exchanges.append,
                    on_member=self.collected.__setitem__,
                ),
                "exchange_deadline": 30.0,
                **options,
            },  # type: ignore[arg-type]
        )

    def run(self, **options: object) -> Result:
        with points.installed(self.faults):
            return self.strategy(**options).start(
                self.grid,
                ArrayRecord(make_model().state_dict()),
                num_rounds=self.rounds,
                timeout=self.timeout,
            )

    @property
    def injected(self) -> dict[str, int]:
        return self.faults.injected

    def values(self) -> np.ndarray:
        """All exchanged values of the collected members, shape (members, size)."""
        names = [name for name, _ in make_model().named_parameters()]
        return np.stack(
            [
                np.concatenate([weights[name].reshape(-1) for name in names])
                for _, weights in sorted(self.collected.items())
            ]
        )

    def given(self) -> np.ndarray:
        """All values that were there at the beginning, shape (members, size)."""
        return np.stack([own_weights(make_model(), member).numpy() for member in range(self.members)])
