"""All checks of this machine, in their order; and that a device without torch and Flower can run them."""

import subprocess
import sys

import pytest

from wash_fl.config import RunConfig
from wash_fl.doctor import Finding, examination, examine
from wash_fl.doctor.superlink import Address, Reachability

SCRIPT = """
import importlib, pkgutil, sys
import wash_fl.cli.main, wash_fl.doctor, wash_fl.lab.bench.memory
for each in pkgutil.walk_packages(wash_fl.doctor.__path__, "wash_fl.doctor."):
    importlib.import_module(each.name)
print(sorted({"torch", "flwr", "grpc", "onnx", "onnxruntime", "cryptography", "psutil"} & set(sys.modules)))
"""


@pytest.fixture
def quick(monkeypatch):
    """Without the steps."""
    monkeypatch.setattr(
        examination, "training", lambda *arguments: iter([Finding("training step", "ok", "tried")])
    )


def test_the_quick_checks_come_first(quick, monkeypatch, tmp_path):
    monkeypatch.setenv("WASH_FL_STATE", str(tmp_path))
    names = [each.name for each in examine(RunConfig())]
    assert names == [
        "Python",
        "architecture",
        "packages",
        "PyTorch",
        "memory",
        "disk",
        "clock",
        "training step",
    ]


def test_the_superlinks_clock_is_the_one_to_compare_with(quick, monkeypatch):
    calls = []

    def reach(address: Address, authority: object) -> Reachability:
        calls.append((str(address), authority))
        return Reachability((Finding("connection", "ok", "it accepts"),), ahead=1e6)

    monkeypatch.setattr(examination, "reach", reach)
    levels = {each.name: each.level for each in examine(RunConfig(), superlink=Address("server", 8443))}
    assert calls == [("server:8443", None)]
    assert levels["connection"] == "ok" and levels["clock"] == "problem"


def test_members_are_kept_where_a_client_keeps_them(monkeypatch, tmp_path):
    from flwr.app import Context, RecordDict

    from wash_fl.flower.client import state_folder

    for options, environment in (
        ({"state-dir": str(tmp_path / "run")}, str(tmp_path / "env")),
        ({}, str(tmp_path / "env")),
        ({}, ""),
    ):
        monkeypatch.setenv("WASH_FL_STATE", environment)
        config = RunConfig.from_mapping(options)
        context = Context(
            run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config.to_mapping()
        )
        assert examination._state_folder(config) == state_folder(context)


def test_no_check_needs_torch_or_flower_to_be_installed():
    process = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_a_finding_that_is_not_well_says_what_to_do():
    with pytest.raises(AssertionError):
        Finding("disk", "problem", "full")
