"""A user's task, written for one test."""

from collections.abc import Callable
from typing import Any

import pytest

from wash_fl.checks.fingerprint import Fingerprint
from wash_fl.checks.twin import Twin
from wash_fl.config import RunConfig

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("up", "down")
INPUT_SHAPE = (5,)


def model():
    return nn.Linear(5, 2)


def train_data():
    return TensorDataset(torch.ones(8, 5), torch.arange(8) % 2)


def test_data():
    return TensorDataset(torch.ones(4, 5), torch.arange(4) % 2)


"""


@pytest.fixture
def task(tmp_path) -> Callable[..., RunConfig]:
    """``task(more)``: the options of a run of a user's task, with more Python after the plain one."""

    def write(more: str = "", **options: Any) -> RunConfig:
        path = tmp_path / "mine.py"
        path.write_text(TASK + more)
        return RunConfig.from_mapping({"task": str(path), **options})

    return write


class LateTwin:
    """The other process, started when it is first asked for, and not beside what is done here."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self._twin: Twin | None = None

    def fingerprint(self) -> Fingerprint:
        self._twin = self._twin or Twin(*self._arguments)
        return self._twin.fingerprint()

    def end(self) -> None:
        if self._twin is not None:
            self._twin.end()


@pytest.fixture
def twin_if_asked(monkeypatch) -> None:
    """Most tasks here are refused before the other process is asked for anything: then there is none."""
    monkeypatch.setattr("wash_fl.checks.subject.Twin", LateTwin)
