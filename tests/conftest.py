"""What more than one room of tests uses."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn
from torch.utils.data import TensorDataset

from wash_fl.errors import WashError
from wash_fl.tasks import Task

torch.set_num_threads(1)

# The same examples in every run: a failure is a failure for everybody, and a slow machine is no failure.
settings.register_profile("wash_fl", derandomize=True, deadline=None, database=None)
settings.load_profile("wash_fl")

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture(scope="session")
def refused() -> Refused:
    """``with refused(ConfigError, "p = 2", ...)``: this error, on one line, with all the parts in it."""

    @contextmanager
    def expect(kind: type[WashError], *parts: str) -> Iterator[None]:
        with pytest.raises(WashError) as caught:
            yield
        message = str(caught.value)
        assert type(caught.value) is kind, message
        assert message.strip() and len(message.splitlines()) == 1, message
        assert message.endswith((".", "?")), message
        for part in parts:
            assert part in message, (part, message)

    return expect


class _Small(nn.Module):
    """Has what is treated in a way of its own somewhere: BatchNorm and dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(0.3)
        self.last = nn.Linear(width, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, 6) to (batch, 3)."""
        outputs: torch.Tensor = self.last(self.dropout(torch.relu(self.norm(self.first(inputs)))))
        return outputs


MakeTask = Callable[..., Task]


@pytest.fixture(scope="session")
def make_task() -> MakeTask:
    """``make_task(train=60, test=30, width=8)``: a task in memory that is learned in milliseconds."""

    def make(train: int = 60, test: int = 30, width: int = 8) -> Task:
        generator = torch.Generator().manual_seed(3)
        inputs = torch.randn(train + test, 6, generator=generator)
        targets = inputs[:, :3].argmax(1)
        return Task(
            name="small",
            classes=("a", "b", "c"),
            input_shape=(6,),
            preprocessing="",
            model=lambda: _Small(width),
            train_data=lambda: TensorDataset(inputs[:train], targets[:train]),
            test_data=lambda: TensorDataset(inputs[train:], targets[train:]),
            loss=nn.functional.cross_entropy,
        )

    return make


@pytest.fixture
def simulated_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wash-fl simulate` runs its job with the real ClientApp in this process: all but Flower's processes."""
    from clients import client_app
    from wash_fl import simulation
    from wash_fl.config import RunConfig
    from wash_fl.job import run_job
    from wash_fl.planes.in_process import InProcessGrid
    from wash_fl.report.run_folder import RunFolder
    from wash_fl.submitting import OnEvent, placed

    def simulate(config: RunConfig, on_event: OnEvent) -> RunFolder:
        config = placed(config)
        clients = {**config.to_mapping(), "state-dir": str(Path(config.fleet.run_dir) / "members")}
        run_job(InProcessGrid(client_app.app, config.training.members, clients), config)
        folder = RunFolder.open(Path(config.fleet.run_dir) / config.fleet.run_name)
        for event in folder.events():
            on_event(event)
        return folder

    monkeypatch.setattr(simulation, "simulate", simulate)
