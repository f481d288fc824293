"""What a simulation refuses before it starts anything, and in which environment it starts the rest."""

from types import SimpleNamespace

import psutil
import pytest

from wash_fl.config import RunConfig
from wash_fl.deploy.simulation import MEMBER_BYTES, _environment, simulate
from wash_fl.errors import RunError


def test_members_that_do_not_fit_into_memory_together_are_refused(monkeypatch, refused, tmp_path):
    free = SimpleNamespace(available=int(3.5 * MEMBER_BYTES))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(
        "wash_fl.deploy.simulation.with_absolute_paths", lambda config: pytest.fail("it starts")
    )
    options = {"members": 4, "exchange-plane": "stream", "run-dir": str(tmp_path)}
    with refused(RunError, "4 members", "2.1 GB", "exchange-plane = round"):
        simulate(RunConfig.from_mapping(options), lambda event: None)
    with pytest.raises(pytest.fail.Exception, match="it starts"):
        simulate(RunConfig.from_mapping(options | {"members": 3}), lambda event: None)
    with pytest.raises(pytest.fail.Exception, match="it starts"):
        simulate(RunConfig.from_mapping(options | {"exchange-plane": "round"}), lambda event: None)


def test_flower_is_started_with_an_engine_of_its_own_and_letters_for_its_log(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "somewhere.example.org:6379")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONUTF8", "0")
    environment = _environment(tmp_path, "mark")
    assert "RAY_ADDRESS" not in environment
    assert (environment["PYTHONIOENCODING"], environment["PYTHONUTF8"]) == ("utf-8", "1")
