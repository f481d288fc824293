"""Small runs that can be stopped after a round and gone on with, by this version or a later one.

All their arithmetic is the same on every processor, for a member only adds what it "learns". So the averaged
weights have one hash, wherever they are computed.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Context
from flwr.clientapp import ClientApp
from stream_fleet import ConcurrentGrid
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.core import philox
from wash_fl.core.identity import weights_sha256
from wash_fl.flower.client import Participant, Round, member_index, participant
from wash_fl.flower.in_process import InProcessGrid
from wash_fl.flower.strategy import WashStrategy
from wash_fl.flower.watching import Watcher
from wash_fl.member.parameters import model_layout
from wash_fl.member.slots import optimizer_slots
from wash_fl.protocol.commands import RoundEnded

MEMBERS, ROUNDS, STOPPED_AFTER, STEPS = 4, 6, 3, 3

CASES = {
    "round-shuffle": ExchangeConfig(p=0.5, mix="shuffle", schedule="constant"),
    "round-permutation": ExchangeConfig(p=0.5, mix="shuffle", topology="permutation", schedule="decreasing"),
    "round-average": ExchangeConfig(p=0.5, mix="average", schedule="constant"),
    "round-int8": ExchangeConfig(p=0.5, mix="average", schedule="constant", dtype="int8"),
    "round-optimizer": ExchangeConfig(p=0.5, mix="shuffle", schedule="constant", exchange_optimizer=True),
    "stream-shuffle": ExchangeConfig(p=0.5, mix="shuffle", schedule="constant", exchange_plane="stream"),
    "stream-bfloat16": ExchangeConfig(
        p=0.5, mix="average", schedule="constant", exchange_plane="stream", dtype="bfloat16"
    ),
    "round-pairs": ExchangeConfig(
        p=0.5, mix="average", topology="pairs", schedule="constant", dtype="bfloat16"
    ),
    "round-ends-in-averages": ExchangeConfig(p=0.5, mix="shuffle", average_from=0.6, schedule="constant"),
    "stream-pairs": ExchangeConfig(
        p=0.5, mix="average", topology="pairs", schedule="constant", exchange_plane="stream"
    ),
}


class StoppedError(Exception):
    """The server's process is over."""


def new_model() -> nn.Module:
    """Return the initial model: weights by Philox, without a generator of PyTorch's."""
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    for index, each in enumerate(model.parameters()):
        each.data = torch.from_numpy(_numbers("older", each.numel(), index, 0).reshape(each.shape))
    return model


def _numbers(purpose: str, count: int, index: int, member: int) -> np.ndarray:
    """Return float32 numbers in -1..1, multiples of 2**-23."""
    words = philox.words(7, purpose, count, index=index, member=member)
    return (words >> np.uint64(40)).astype(np.float32) / np.float32(2.0**23) - np.float32(1)


@dataclass
class UnfinishedRun:
    """A run in one process, on its own folder."""

    folder: Path
    exchange: ExchangeConfig
    stop_after: int = 0
    reports: list[RoundEnded] = field(default_factory=list)

    def run(self) -> str:
        """Return the hash of the averaged weights.

        Raises
        ------
        StoppedError
            After the round ``stop_after``.
        """
        app = ClientApp()
        participant(app)(self._bring)
        grid = ConcurrentGrid if self.exchange.streams else InProcessGrid
        result = self._strategy().start(
            grid(app, MEMBERS, {"state-dir": str(self.folder / "state")}),
            ArrayRecord(new_model().state_dict()),
            num_rounds=ROUNDS,
            timeout=60.0,
        )
        return weights_sha256({name: each.numpy() for name, each in result.arrays.items()})

    def _strategy(self) -> WashStrategy:
        optimizer = torch.optim.SGD(new_model().parameters(), lr=0.5, momentum=0.5)

        def on_round(report: RoundEnded) -> None:
            self.reports.append(report)
            if report.round == self.stop_after:
                raise StoppedError

        return WashStrategy(
            model_layout(new_model(), optimizer_slots(optimizer) if self.exchange.exchange_optimizer else ()),
            members=MEMBERS,
            local_steps=STEPS,
            exchange=self.exchange,
            seed=11,
            run_name="older",
            journal=self.folder / "journal.sqlite",
            start_timeout=10.0,
            recalibrate=False,
            keep_members=True,
            watcher=Watcher(on_round=on_round),
            exchange_deadline=60.0,
        )

    def _bring(self, context: Context) -> Participant:
        member = member_index(context)
        model = new_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)

        def train(now: Round) -> dict[str, float]:
            for step in range(now.first_step, now.first_step + now.steps):
                for place, each in enumerate(model.parameters()):
                    numbers = _numbers("learned", each.numel(), 100 * step + place, member)
                    learned = torch.from_numpy(numbers.reshape(each.shape))
                    each.data += learned
                    if self.exchange.exchange_optimizer:
                        state = optimizer.state[each]
                        each.data += state.get("momentum_buffer", 0)
                        state["momentum_buffer"] = 2 * learned
                optimizer.step()  # without a gradient: only what hooks into it happens
            return {"loss": float(member)}

        return Participant(model=model, optimizer=optimizer, train=train)
