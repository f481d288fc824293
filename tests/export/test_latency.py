"""Two files are timed in pairs, for as long as a look may take."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wash_fl.export import latency
from wash_fl.export.inference import Predictor
from wash_fl.export.metadata import ModelCard


@pytest.fixture
def models(tmp_path: Path, write_model: Callable[[Path, ModelCard], object]) -> tuple[Predictor, Predictor]:
    for name in ("a.onnx", "b.onnx"):
        write_model(tmp_path / name, ModelCard(classes=("x", "y"), input_shape=(3,)))
    return Predictor(tmp_path / "a.onnx"), Predictor(tmp_path / "b.onnx")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Callable[[int], float]], list[tuple[str, int]]]:
    """What a file's answer takes by its turn, and the answers that were asked for."""
    now = [0.0]
    costs: dict[str, Callable[[int], float]] = {}
    calls: list[tuple[str, int]] = []
    logits = Predictor.logits

    def taking(self: Predictor, batch: np.ndarray) -> np.ndarray:
        now[0] += costs[self.path.name](len(calls) // 2)
        calls.append((self.path.name, len(batch)))
        return logits(self, batch)

    monkeypatch.setattr(Predictor, "logits", taking)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    return costs, calls


INPUTS = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_machine_that_slows_down_changes_no_ratio(models, clock) -> None:
    costs, calls = clock
    costs |= {"a.onnx": lambda turn: 0.001 * (1 + turn), "b.onnx": lambda turn: 0.0005 * (1 + turn)}
    rows = latency.compare(*models, INPUTS)
    assert set(rows) == {"1", "32"}
    for row in rows.values():
        assert [row[name] for name in ("ratio", "ratio_p25", "ratio_p75")] == pytest.approx([0.5] * 3)
        assert row["int8_ms"] == pytest.approx(row["float32_ms"] / 2)
    assert {size for _, size in calls} == {1, 32}


def test_the_file_that_answers_first_changes_from_turn_to_turn(models, clock) -> None:
    costs, calls = clock
    costs |= {"a.onnx": lambda _: 0.001, "b.onnx": lambda _: 0.001}
    latency.take_turns(models, [INPUTS, INPUTS], repeats=2, warm_up=1)
    assert "".join(name[0] for name, _ in calls) == "abbaab"


def test_noise_is_not_faster(models, clock) -> None:
    costs, _ = clock
    costs |= {"a.onnx": lambda _: 0.001, "b.onnx": lambda turn: 0.0008 if turn % 3 else 0.0012}
    row = latency.compare(*models, INPUTS)["1"]
    assert row["ratio"] < 1 < row["ratio_p75"]


@pytest.mark.parametrize(("seconds", "turns"), [(0.0001, 50), (0.1, 25), (30.0, 5)])
def test_a_slow_model_takes_fewer_turns(models, clock, seconds: float, turns: int) -> None:
    costs, calls = clock
    costs |= {"a.onnx": lambda _: seconds, "b.onnx": lambda _: seconds}
    latency.compare(*models, INPUTS)
    measured = sum(size == 1 for _, size in calls) // 2 - 2  # one to warm up, one to see how long it takes
    assert measured == turns + min(turns, 5)
