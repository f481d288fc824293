"""What more than one room of tests uses."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from rich.console import Console

from wash_fl.cli.main import main
from wash_fl.errors import WashError
from wash_fl.export.metadata import ModelCard
from wash_fl.export.seal import sealed

if TYPE_CHECKING:
    from wash_fl.tasks import Task

with suppress(ModuleNotFoundError):  # where tools/arm64.py runs the tests of what needs no torch
    import torch

    torch.set_num_threads(1)
    if not torch.accelerator.is_available():
        # Where there is no such device torch.manual_seed notes down at every call, with three stack traces,
        # how they are to be seeded if one comes: most of what a small fleet's members would take.
        torch.manual_seed = torch.default_generator.manual_seed

# Nothing here cuts the power: that files are synced is asked of the calls, which these tests watch.
os.fsync = lambda descriptor: None

# The same examples in every run: a failure is a failure for everybody, and a slow machine is no failure.
settings.register_profile("wash_fl", derandomize=True, deadline=None, database=None)
settings.load_profile("wash_fl")


@pytest.hookimpl(trylast=True)  # after those that are not wanted have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the files with slow tests over the first two thirds of the others, for several workers.

    Slow tests mostly wait for Flower: beside them the processors are free for the quick ones.
    """
    if not hasattr(config, "workerinput"):
        return
    slow = list(dict.fromkeys(item.path for item in items if item.get_closest_marker("slow")))
    quick = list(dict.fromkeys(item.path for item in items if item.path not in slow))
    place = {path: number / len(quick) for number, path in enumerate(quick)}
    place |= {path: 2 / 3 * number / len(slow) for number, path in enumerate(slow)}
    items.sort(key=lambda item: (place[item.path], item.path not in slow))


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
        assert message.endswith((".", "?")) and not message.endswith(".."), message
        for part in parts:
            assert part in message, (part, message)

    return expect


MakeTask = Callable[..., "Task"]


@pytest.fixture(scope="session")
def make_task() -> MakeTask:
    """``make_task(train=60, test=30, width=8)``: a task in memory that is learned in milliseconds."""
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

    from wash_fl.tasks import Task

    class Small(nn.Module):
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

    def make(train: int = 60, test: int = 30, width: int = 8) -> Task:
        generator = torch.Generator().manual_seed(3)
        inputs = torch.randn(train + test, 6, generator=generator)
        targets = inputs[:, :3].argmax(1)
        return Task(
            name="small",
            classes=("a", "b", "c"),
            input_shape=(6,),
            preprocessing="",
            model=lambda: Small(width),
            train_data=lambda: TensorDataset(inputs[:train], targets[:train]),
            test_data=lambda: TensorDataset(inputs[train:], targets[train:]),
            loss=nn.functional.cross_entropy,
        )

    return make


WriteModel = Callable[[Path, ModelCard], "np.ndarray"]


@pytest.fixture(scope="session")
def write_model() -> WriteModel:
    """``weight = write_model(path, card)``: an ONNX file that answers ``Flatten(input) @ weight``.

    Written by hand: predicting must not need what exporting needs.
    """

    def write(path: Path, card: ModelCard) -> np.ndarray:
        from onnx import TensorProto, helper, numpy_helper

        size, classes = prod(card.input_shape), len(card.classes)
        weight = np.random.default_rng(5).normal(size=(size, classes)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("Flatten", ["input"], ["flat"]),
                helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
            ],
            "linear",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *card.input_shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
            [numpy_helper.from_array(weight, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        helper.set_model_props(model, card.to_metadata())
        path.write_bytes(sealed(model))
        return weight

    return write


@dataclass(frozen=True)
class CommandResult:
    """What a command answered."""

    status: int
    out: str
    err: str


Command = Callable[..., CommandResult]


@pytest.fixture
def wash(monkeypatch, capsys) -> Command:
    """``wash("simulate", "--p", "2")``: the command line in this process, on a terminal of 50 columns."""

    def run(*arguments: object, columns: int = 50) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["wash-fl", *map(str, arguments)])
        # As the installed command, also where these tests are started with `python -m pytest`.
        monkeypatch.setattr(sys.modules["__main__"], "__package__", "", raising=False)
        monkeypatch.setenv("COLUMNS", str(columns))
        # A console keeps the width that it was made with where COLUMNS was set then, as pytest-xdist sets it.
        for name, module in list(sys.modules.items()):
            if name.startswith(("wash_fl.cli.", "wash_fl.lab.")) and hasattr(module, "out"):
                monkeypatch.setattr(module, "out", Console())
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main()
        printed = capsys.readouterr()
        return CommandResult(exit_info.value.code or 0, printed.out, printed.err)  # type: ignore[arg-type]

    return run


@pytest.fixture
def flower_log(caplog: pytest.LogCaptureFixture) -> None:
    """What Flower's logger is told reaches ``caplog``: by itself it does not hand its records up."""
    logging.getLogger("flwr").propagate = True
    caplog.set_level(logging.INFO, logger="flwr")


@pytest.fixture
def only_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job ends with the averaged weights and the summary: no file is exported, and no figure drawn."""
    from types import SimpleNamespace

    from wash_fl.runs import job

    parity = SimpleNamespace(largest_difference=0.0, agreement=1.0)
    monkeypatch.setattr(job, "export_averaged", lambda *arguments: parity)
    monkeypatch.setattr(job, "draw_figures", lambda *arguments: None)


@pytest.fixture
def simulated_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wash-fl simulate` runs its job with the real ClientApp in this process: all but Flower's processes."""
    from clients import client_app
    from wash_fl.config import RunConfig
    from wash_fl.deploy import simulation
    from wash_fl.deploy.submitting import OnEvent, with_absolute_paths
    from wash_fl.flower.in_process import InProcessGrid
    from wash_fl.runs.folder import RunFolder
    from wash_fl.runs.job import run_job

    def simulate(config: RunConfig, on_event: OnEvent) -> RunFolder:
        config = with_absolute_paths(config)
        clients = {**config.to_mapping(), "state-dir": str(Path(config.fleet.run_dir) / "members")}
        run_job(InProcessGrid(client_app.app, config.training.members, clients), config)
        folder = RunFolder.open(Path(config.fleet.run_dir) / config.fleet.run_name)
        for event in folder.events():
            on_event(event)
        return folder

    monkeypatch.setattr(simulation, "simulate", simulate)
