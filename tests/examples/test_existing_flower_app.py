"""The Flower app before and after: little differs, and both run with `flwr run` as their README says."""

import difflib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from wash_fl.deploy import processes

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "existing_flower_app"
ACCURACY = re.compile(r"test accuracy of the final model: ([\d.]+)%")


def files(app: str) -> dict[str, list[str]]:
    return {
        str(path.relative_to(EXAMPLE / app)): path.read_text().splitlines()
        for path in sorted((EXAMPLE / app).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wash_adds_less_than_20_lines_and_the_readme_says_how_many():
    before, after = files("before"), files("after")
    assert before.keys() == after.keys()
    changed = [
        line
        for name in before
        for line in difflib.unified_diff(before[name], after[name], n=0, lineterm="")
        if not line.startswith(("+++", "---", "@@"))
    ]
    added = sum(line.startswith("+") for line in changed)
    assert 0 < added < 20
    assert f"adds {added} lines" in " ".join((EXAMPLE / "README.md").read_text().split())
    assert before["digitsapp/task.py"] == after["digitsapp/task.py"]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Flower with a home of its own, on free ports; whatever was started is stopped."""
    # A short path: Ray makes Unix sockets below it, whose paths are limited to about 100 bytes.
    home, mark = Path(tempfile.mkdtemp(prefix="wash-", dir="/tmp")), uuid.uuid4().hex
    try:
        yield processes.flower_environment(home, mark) | {
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(processes.free_port()),
            "FLWR_LOCAL_CONTROL_API_PORT": str(processes.free_port()),
            "RAY_TMPDIR": str(home),
            "RAY_USAGE_STATS_ENABLED": "0",
            "TMPDIR": str(home),
            "WASH_FL_STATE": str(home / "state"),
        }
    finally:
        processes.stop_marked(mark)
        assert processes.marked(mark) == set()
        shutil.rmtree(home, ignore_errors=True)


def run(app: str, environment: dict[str, str], *more: str) -> str:
    """Type the commands of the README in a copy of the app; return what they print."""
    typed = re.findall(r"^    (\S.*)$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    setting, command = typed
    name, value = setting.removeprefix("export ").split("=")
    place = Path(environment["TMPDIR"]) / app
    shutil.copytree(EXAMPLE / app, place, ignore=shutil.ignore_patterns("__pycache__"))
    for _ in range(3):
        ended = subprocess.run(
            [*shlex.split(command), *more],
            cwd=place,
            env=environment | {name: value},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        # Flower waits 15 s for its SuperLink, and no option makes it wait longer: a busy machine takes more.
        if "Failed to start local SuperLink within" not in ended.stdout + ended.stderr:
            break
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.long
def test_before_trains_with_fedavg(environment):
    # A few rounds show that the app is sound.
    printed = run("before", environment, "--run-config", "num-server-rounds=3")
    assert "Starting FedAvg strategy" in printed
    (accuracy,) = ACCURACY.findall(printed)
    assert 0 < float(accuracy) < 100


@pytest.mark.slow
def test_after_trains_with_wash_to_a_model_that_is_good_and_leaves_no_state(environment):
    printed = run("after", environment)
    assert "WASH: average, 4 members" in printed
    assert "collected members [0, 1, 2, 3]" in printed
    (accuracy,) = ACCURACY.findall(printed)
    # An average of 92 to 97 per cent, by what order the clients happen to see their data in.
    assert float(accuracy) >= 85
    state = environment["WASH_FL_STATE"]
    assert [names for _, _, names in os.walk(state) if names] == []
