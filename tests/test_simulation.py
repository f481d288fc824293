"""Tests of what a simulation refuses before it starts anything."""

from types import SimpleNamespace

import psutil
import pytest

from wash_fl.config import RunConfig
from wash_fl.errors import RunError
from wash_fl.simulation import MEMBER_BYTES, simulate


def test_members_that_do_not_fit_into_memory_together_are_refused(monkeypatch, refused, tmp_path):
    free = SimpleNamespace(available=int(3.5 * MEMBER_BYTES))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr("wash_fl.simulation.placed", lambda config: pytest.fail("it starts"))
    options = {"members": 4, "exchange-plane": "stream", "run-dir": str(tmp_path)}
    with refused(RunError, "4 members", "2.1 GB", "exchange-plane = round"):
        simulate(RunConfig.from_mapping(options), lambda event: None)
    with pytest.raises(pytest.fail.Exception, match="it starts"):
        simulate(RunConfig.from_mapping(options | {"members": 3}), lambda event: None)
    with pytest.raises(pytest.fail.Exception, match="it starts"):
        simulate(RunConfig.from_mapping(options | {"exchange-plane": "round"}), lambda event: None)
