"""What a run's folder says of a job that did not get to its end."""

import pytest

from wash_fl.config import RunConfig
from wash_fl.flower.in_process import InProcessGrid
from wash_fl.runs.folder import RunFolder
from wash_fl.runs.job import run_job


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit(0), "it was told to end"),
        (KeyboardInterrupt(), "it was told to end"),
        (MemoryError(), "MemoryError"),
        (ValueError("no such node"), "no such node"),
    ],
)
def test_a_job_that_fails_says_why_in_words(tmp_path, monkeypatch, error, reason):
    from clients.client_app import app

    config = RunConfig.from_mapping({"members": 2, "run-name": "one", "run-dir": str(tmp_path)})
    grid = InProcessGrid(app, 2, config.to_mapping())

    def fail() -> list[int]:
        raise error

    monkeypatch.setattr(grid, "get_node_ids", fail)
    with pytest.raises(type(error)):
        run_job(grid, config)
    assert RunFolder(tmp_path / "one").last("failed")["reason"] == reason
