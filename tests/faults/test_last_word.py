"""A member that is honest until the end, and then hands in what ruins the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message

from wash_fl.errors import RunError
from wash_fl.flower import records
from wash_fl.flower.in_process import Deliver

from fleet import Fleet

Arrays = dict[str, np.ndarray]
HOSTILE = 2

pytestmark = pytest.mark.usefixtures("flower_log")


def saying(kind: str, alter: Callable[[Arrays], Arrays]) -> Any:
    """A fault: the hostile member's arrays in its replies of a kind are others."""

    def fault(member: int, request: Message, deliver: Deliver) -> list[Message]:
        (reply,) = deliver(request)
        if request.metadata.message_type == kind and member == HOSTILE:
            record: ArrayRecord = reply.content.array_records[records.ARRAYS]
            arrays = {name: array.numpy() for name, array in record.items()}
            record.update(records.array_record(alter(arrays)))
        return [reply]

    return fault


def noise(arrays: Arrays) -> Arrays:
    draw = np.random.Generator(np.random.Philox(1))
    weights = {name: each for name, each in arrays.items() if name.startswith(("0.", "3."))}
    return {
        name: (each + 10 * np.abs(each).mean() * draw.normal(size=each.shape)).astype(each.dtype)
        for name, each in weights.items()
    }


FINALS: dict[str, Callable[[Arrays], Arrays]] = {
    "noise": noise,
    "the last layer times -20": lambda arrays: {"3.weight": arrays["3.weight"] * np.float32(-20)},
    "everything times 100": lambda arrays: {
        name: arrays[name] * np.float32(100) for name in ("0.weight", "3.weight")
    },
}


@pytest.mark.parametrize("what", FINALS)
def test_a_final_model_far_from_the_others_is_not_averaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    fleet = Fleet(tmp_path, rounds=3, fault=saying(records.COLLECT, FINALS[what]))
    strategy = fleet.strategy()
    fleet.start(strategy)
    assert strategy.collected == [0, 1, 3] and set(fleet.collected) == {0, 1, 3}
    assert "as far from the members' middle" in strategy.left_out[HOSTILE]
    assert f"member {HOSTILE} is not in the average" in caplog.text


def test_the_average_without_it_is_that_of_the_others(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rounds=3, calibration=False, fault=saying(records.COLLECT, noise))
    result = fleet.run()
    mean = np.mean([fleet.collected[member]["3.weight"] for member in (0, 1, 3)], axis=0, dtype=np.float64)
    assert result.arrays["3.weight"].numpy() == pytest.approx(mean.astype(np.float32))


def test_with_a_factor_of_zero_everything_is_averaged(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rounds=3, fault=saying(records.COLLECT, noise))
    strategy = fleet.strategy(outlier_factor=0.0)
    fleet.start(strategy)
    assert strategy.collected == [0, 1, 2, 3]


@pytest.mark.parametrize("how", ["median", "trimmed"])
def test_a_robust_mean_holds_without_the_screen(tmp_path: Path, how: str) -> None:
    fault = saying(records.COLLECT, FINALS["everything times 100"])
    fleet = Fleet(tmp_path, rounds=3, fault=fault)
    result = fleet.run(outlier_factor=0.0, final_average=how)
    honest = np.array([fleet.collected[member]["3.weight"] for member in (0, 1, 3)])
    averaged = result.arrays["3.weight"].numpy()
    assert ((honest.min(axis=0) <= averaged) & (averaged <= honest.max(axis=0))).all()


def test_an_average_that_is_none_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="final_average = 'medina' is not allowed: it is one of mean, trimmed"):
        Fleet(tmp_path).strategy(final_average="medina")


def test_statistics_of_nothing_for_all_examples_there_are_do_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def claim(arrays: Arrays) -> Arrays:
        return {
            name: np.array([2**60], each.dtype) if name == "examples" else np.full_like(each, 1e6)
            for name, each in arrays.items()
        }

    honest = Fleet(tmp_path / "honest", rounds=3).run()
    result = Fleet(tmp_path / "hostile", rounds=3, fault=saying(records.RECALIBRATE, claim)).run()
    assert f"member {HOSTILE}: its BatchNorm statistics are not used" in caplog.text
    result_mean, expected = (each.arrays["1.running_mean"].numpy() for each in (result, honest))
    assert np.abs(result_mean - expected).max() < 10
