"""A real fleet as a user runs it: a SuperLink and three SuperNodes, with TLS and node authentication."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from wash_fl.config import RunConfig
from wash_fl.deploy import processes
from wash_fl.deploy.certificates import make_authority
from wash_fl.deploy.description import Description
from wash_fl.deploy.node_keys import make_node_key
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.runs.folder import RunFolder
from wash_fl.tasks import digits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WASH_FL = [sys.executable, "-m", "wash_fl"]
OPTIONS: dict[str, Any] = {
    "members": 3,
    "rounds": 2,
    "learning-rate": 0.5,
    "recipe": "frugal",  # differences to an anchor in 4 bits, with an outer step
    "evaluate-every": 0,
}


def wash_fl(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*WASH_FL, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def ok(folder: Path, *arguments: object) -> str:
    finished = wash_fl(folder, *arguments)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("a folder with spaces")
    try:
        told = ok(folder, "fleet", "up", "--members", 3)
        assert "3 nodes are connected" in told
        yield folder
    finally:
        if (folder / "fleet" / "fleet.json").exists():
            wash_fl(folder, "fleet", "down")
            mark = Description.load(folder / "fleet").mark
            assert not any(processes.is_alive(each) for each in processes.marked(mark))


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ok(folder, "fleet", "status", "--json"))
    return found


@contextmanager
def intruder(folder: Path, name: str, key: Path, authority: Path) -> Iterator[tuple[Any, Path]]:
    """A SuperNode that wants to be member 0 as well: its process, and its log."""
    log = folder / f"{name}.log"
    command = [
        "flower-supernode",
        "--root-certificates",
        str(authority),
        "--superlink",
        status(folder)["address"],
    ]
    command += ["--auth-supernode-private-key", str(key), "--node-config", "partition-id=0"]
    environment = processes.flower_environment(folder / name, name)
    try:
        yield processes.start([*command, "--port", str(processes.free_port())], environment, log), log
    finally:
        processes.stop_marked(name)


def test_a_fleet_is_up_with_all_of_its_nodes_and_is_not_started_twice(folder: Path) -> None:
    found = status(folder)
    assert found["running"] and len(found["nodes"]) == 3
    assert all(node["running"] and node["connected"] for node in found["nodes"])
    assert {"superlink", "supernode 0", "supernode 1", "supernode 2"} <= found["processes"].keys()
    again = wash_fl(folder, "fleet", "up")
    assert again.returncode == 1
    assert again.stderr.startswith("error: the fleet in") and "runs already" in again.stderr
    assert status(folder)["processes"] == found["processes"]


def test_a_run_on_a_fleet_is_the_run_and_strangers_neither_join_nor_disturb_it(folder: Path) -> None:
    flags = [part for key, value in OPTIONS.items() for part in (f"--{key}", str(value))]
    run = subprocess.Popen(
        [*WASH_FL, "serve", "--fleet", "fleet", "--run-name", "two", *flags],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    credentials = folder / "fleet" / "credentials"
    stranger, _ = make_node_key(folder, "stranger")
    make_authority(folder / "elsewhere")
    with (
        intruder(folder, "unregistered", stranger, credentials / "ca.crt") as (unregistered, its_log),
        intruder(folder, "misled", credentials / "node0", folder / "elsewhere" / "ca.crt") as (misled, log),
    ):
        assert (unregistered.wait(600), misled.wait(600)) == (1, 1)
        # Flower's code for a SuperNode that may not be activated.
        assert "[code: 2004]" in its_log.read_text()
        assert "CERTIFICATE_VERIFY_FAILED" in log.read_text()
    assert run.poll() is None
    output, _ = run.communicate(timeout=1500)
    assert run.returncode == 0, output
    for number in range(1, 3):
        assert f"round {number}/2  3 members" in output
    assert "averaged: one model" in output and "model.onnx" in output
    summary = RunFolder.open(folder / "runs" / "two").summary()
    assert summary["members"] == [0, 1, 2]
    # One truth: the same weights as without Flower, processes and network.
    assert summary["weights_sha256"] == Trainer(RunConfig.from_mapping(OPTIONS)).run().sha256
    assert all(node["connected"] for node in status(folder)["nodes"])


def test_the_model_of_the_fleet_answers(folder: Path) -> None:
    image, label = digits.test_data()[0]
    np.save(folder / "image.npy", image.numpy())
    model = folder / "runs" / "two" / "model.onnx"
    answer = json.loads(ok(folder, "predict", model, "image.npy", "--json"))
    assert answer["predictions"][0]["label"] == str(int(label))


def test_a_finished_run_leaves_nothing_on_the_devices_and_is_not_run_again(folder: Path) -> None:
    for member in range(3):
        state = folder / "fleet" / f"node-{member}" / "state"
        assert state.is_dir() and not [each for each in state.rglob("*") if each.is_file()]
    again = wash_fl(folder, "serve", "--fleet", "fleet", "--resume", "runs/two")
    assert again.returncode == 1 and "finished" in again.stderr
    assert len(again.stderr.splitlines()) == 1


def test_down_stops_exactly_what_up_started(folder: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        before = [pid for pids in status(folder)["processes"].values() for pid in pids]
        assert "stopped" in ok(folder, "fleet", "down")
        assert not any(psutil.pid_exists(pid) for pid in before)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert "nothing of the fleet" in ok(folder, "fleet", "down")
    found = status(folder)
    assert (found["running"], found["processes"]) == (False, {})


def test_a_fleet_that_was_stopped_starts_again_and_lets_its_nodes_in_at_once(folder: Path) -> None:
    nodes = [node["node"] for node in status(folder)["nodes"]]
    told = ok(folder, "fleet", "up")
    # Those that leave properly need not wait for the minute in which the SuperLink would miss them: that is
    # said where it happens. A clock would measure the machine.
    assert "minute" not in told
    found = status(folder)
    assert [node["node"] for node in found["nodes"]] == nodes
    assert all(node["connected"] for node in found["nodes"])
    assert "stopped" in ok(folder, "fleet", "down")
