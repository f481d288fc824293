"""A made-up run: the files that a run leaves, with numbers that are told apart at sight."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wash_fl.config import RunConfig
from wash_fl.runs.folder import MODEL, RunFolder

ROUNDS = 4
SUMMARY: dict[str, Any] = {
    "run": "one",
    "weights_sha256": "ab" * 32,
    "members": [0, 1],
    "left_out": {"2": "given up: it was away too long"},
    "accuracy": {
        "members": {"0": 0.71, "1": 0.75},
        "mean_member": 0.73,
        "ensemble": 0.8125,
        "averaged_before_batchnorm": 0.5,
        "averaged": 0.7925,
    },
    "bytes": {
        "up_values": 3_000_000,
        "up_messages": 3_600_000,
        "up_models": 190_000,
        "down_values": 2_000_000,
        "down_messages": 2_400_000,
        "down_models": 570_000,
    },
    "onnx": {"largest_difference": 1.5e-06, "agreement": 0.9975},
}

MakeRun = Callable[..., RunFolder]


def round_fields(number: int, **changes: Any) -> dict[str, Any]:
    members = range(3 if number < 3 else 2)  # member 2 is gone from round 3 on
    fields: dict[str, Any] = {
        "round": number,
        "participants": list(members),
        "absent": [],
        "set_aside": {},
        "members": {
            str(member): {"loss": 1 / number, "accuracy": 0.1 * number + 0.01 * member} for member in members
        },
        "distance": 2.0 * number,
        "relative_distance": 0.02 * number,
        "bytes": {name: count * number // ROUNDS for name, count in SUMMARY["bytes"].items()},
        "seconds": 0.5,
    }
    return fields | changes


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run("name", rounds=4, finished=True, changed={2: {...}}, summary={...}, members=3)``."""

    def make(
        name: str = "one",
        *,
        rounds: int = ROUNDS,
        finished: bool = True,
        changed: dict[int, dict[str, Any]] | None = None,
        summary: dict[str, Any] | None = None,
        **options: Any,
    ) -> RunFolder:
        defaults = {"members": 3, "rounds": ROUNDS, "run-dir": str(tmp_path / "runs"), "run-name": name}
        defaults["recipe"] = "none"  # a run's folder has no options that are still open
        folder = RunFolder.create(RunConfig.from_mapping(defaults | options))
        folder.log("start", version="9.8.7", task="digits", rounds=ROUNDS, pid=1)
        for number in range(1, rounds + 1):
            folder.log("round", **round_fields(number, **(changed or {}).get(number, {})))
            folder.log_exchange(
                exchange=number,
                members=[0, 1],
                distance=2.0,
                seconds=0.1,
                bytes={"0": [1000, 100, 500, 50], "1": [2000, 200, 600, 60], "2": [0, 7, 0, 8]},
            )
        if finished:
            (folder.path / MODEL).write_bytes(b"a model")
            folder.save_summary(SUMMARY | (summary or {}))
            folder.log("finished", summary="summary.json")
        return folder

    return make
