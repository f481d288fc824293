"""The campaign's command: what it prints, keeps and returns; no process is started."""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wash_fl.errors import RunError
from wash_fl.lab.campaign.judge import Outcome
from wash_fl.lab.campaign.plan import DISK, NETWORK, Kind, Plan, plan_of

ROOT = Path(__file__).resolve().parents[2]
WELL = Outcome(seconds=100.0, by_itself=True, sha256="same", undisturbed="same", members=(0, 1, 2))


@pytest.fixture
def campaign(monkeypatch, tmp_path) -> Callable[..., tuple[int, str]]:
    """``campaign(outcome, *arguments)``: its exit status, and what it printed."""
    spec = importlib.util.spec_from_file_location("campaign", ROOT / "tools" / "campaign.py")
    assert spec is not None and spec.loader is not None
    tool: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "_possible", lambda: (list(Kind), ""))
    monkeypatch.setattr(tool, "_undisturbed", lambda plan: "same")
    monkeypatch.setenv("COLUMNS", "200")

    def run(outcome: Outcome | RunError, *arguments: str) -> int:
        def disturbed(plan: Plan, root: Path, undisturbed: str, **options: Any) -> Outcome:
            (root / "runs").mkdir()
            if isinstance(outcome, RunError):
                raise outcome
            return replace(outcome, happened=[""] * len(plan.disturbances))

        monkeypatch.setattr(tool, "disturbed_run", disturbed)
        monkeypatch.setattr(sys, "argv", ["campaign.py", *arguments])
        with pytest.raises(SystemExit) as end:
            tool.main()
        return int(end.value.code or 0)

    run.tool = tool  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def test_runs_that_came_out_well_are_a_table_and_status_0(campaign, capsys):
    assert campaign(WELL, "--runs", "2", "--first", "5") == 0
    printed = capsys.readouterr().out
    assert "2 runs, 0 of them wrong" in printed and "the same weights, audit exact" in printed
    assert str(plan_of(0, 5).disturbances[0])[:20] in printed


def test_one_that_did_not_is_status_1_and_is_kept(campaign, capsys, tmp_path):
    kept = tmp_path / "kept"
    wrong = replace(WELL, sha256="other")
    assert campaign(wrong, "--runs", "1", "--seed", "3", "--keep", str(kept), "--json") == 1
    content = json.loads(capsys.readouterr().out)
    assert (content["seed"], content["failures"]) == (3, 1)
    assert content["runs"][0]["same_weights"] is False and "its weights" in content["runs"][0]["wrongs"][0]
    assert (kept / "3-0" / "runs").is_dir()


def test_a_fleet_that_does_not_start_is_wrong_and_the_campaign_goes_on(campaign, capsys):
    assert campaign(RunError("no port is free."), "--runs", "2") == 1
    assert "2 runs, 2 of them wrong" in capsys.readouterr().out


def test_without_namespaces_the_rest_happens_and_what_is_left_out_is_said(monkeypatch):
    spec = importlib.util.spec_from_file_location("campaign", ROOT / "tools" / "campaign.py")
    assert spec is not None and spec.loader is not None
    tool: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def refuse(devices: int) -> None:
        raise RunError("there are no namespaces.")

    monkeypatch.setattr(tool, "Network", refuse)
    kinds, without = tool._possible()
    assert not set(kinds) & {*NETWORK, *DISK} and Kind.KILL in kinds
    assert "partition" in without and "full disk" in without and "there are no namespaces" in without
