"""Kill points: nothing without a plan, SIGKILL once with one, an exception within a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wash_fl.errors import ConfigError
from wash_fl.faults import points
from wash_fl.faults.plan import FaultPlan

CHILD = """
from wash_fl.faults import points
for exchange in (1, 2, 3):
    for point in ("asked", "trained", "saved"):
        points.reach(point, member=1, exchange=exchange)
        print(exchange, point, flush=True)
"""


def child(code: str = CHILD, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_plan_nothing_happens() -> None:
    process = child()
    assert process.returncode == 0
    assert len(process.stdout.splitlines()) == 9


def test_a_process_is_killed_at_its_point_and_lives_on_after_a_restart(tmp_path: Path) -> None:
    environment = {
        points.PLAN: "kill member=1 exchange=2 at=trained; kill member=0 exchange=1 at=asked",
        points.FOLDER: str(tmp_path / "ledger"),
    }
    first, second = child(**environment), child(**environment)
    assert first.returncode == -signal.SIGKILL
    assert first.stdout.splitlines()[-1] == "2 asked"
    assert second.returncode == 0
    assert len(second.stdout.splitlines()) == 9
    assert points.from_environment(environment).injected == {"kill": 1}  # type: ignore[union-attr]


def test_a_plan_in_a_file_may_come_later(tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    environment = {points.PLAN: f"@{plan}", points.FOLDER: str(tmp_path / "ledger")}
    assert child(**environment).returncode == 0
    plan.write_text("kill server at=settled; kill member=1 at=saved\n")
    killed = child(**environment)
    assert (killed.returncode, killed.stdout.splitlines()[-1]) == (-signal.SIGKILL, "1 trained")


def test_a_server_is_another_process_than_member_0(tmp_path: Path) -> None:
    environment = {points.PLAN: "kill member=0 at=saved", points.FOLDER: str(tmp_path)}
    code = "from wash_fl.faults import points; points.reach('settled', exchange=1)"
    assert child(code, **environment).returncode == 0


def test_a_plan_without_a_memory_or_with_a_mistake_is_refused(tmp_path: Path, refused) -> None:  # type: ignore[no-untyped-def]
    with refused(ConfigError, points.FOLDER, "die again after its restart"):
        points.from_environment({points.PLAN: "kill server at=settled"})
    with refused(ConfigError, "at=nowhere"):
        points.from_environment({points.PLAN: "kill server at=nowhere", points.FOLDER: str(tmp_path)})
    assert points.from_environment({}) is None
    assert points.from_environment({points.PLAN: " "}) is None


def test_within_a_process_the_kill_is_an_exception_that_nothing_swallows() -> None:
    with points.installed(FaultPlan.parse("kill server exchange=2 at=settled")) as plan:
        points.reach("settled", exchange=1)
        with pytest.raises(points.Killed, match="kill server exchange=2 at=settled"):
            try:
                points.reach("settled", exchange=2)
            except Exception:
                pytest.fail("an ordinary handler took it for an error")
        points.reach("settled", exchange=2)
        assert plan.injected == {"kill": 1}
    assert points._installed is None


def test_a_misspelt_point_in_the_code_is_found_as_soon_as_any_plan_is_there() -> None:
    with points.installed(FaultPlan()), pytest.raises(AssertionError, match="settle"):
        points.reach("settle", exchange=1)


def test_without_a_plan_a_point_reads_no_file_and_parses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(points.PLAN, raising=False)
    monkeypatch.setattr(points, "from_environment", lambda environment: pytest.fail("it looked for a plan"))
    points.reach("settled", exchange=1)
