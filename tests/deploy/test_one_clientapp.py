"""However long a ClientApp takes to start, one is at work on a device: with Flower's launcher and state."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from wash_fl.deploy import one_clientapp, processes, supervisor

WAIT = 120.0

CLIENTAPP = """\
import os, sys, time
with open(sys.argv[1], "a") as file:
    print(os.getpid(), *sys.argv[2:], file=file)
time.sleep(float(sys.argv[2]))
"""

SLOW = """\
import os, sys, time
if any(word.endswith("/flwr-clientapp") for word in sys.orig_argv[1:2]):
    with open({log!r}, "a") as file:
        print(os.getpid(), file=file)
    time.sleep({seconds})
"""
"""Makes a ClientApp, and nothing else, slow to start: Python runs it first if its folder is in PYTHONPATH."""


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Device:
    """A folder in which ClientApps note down that they have begun."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "starts"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, seconds: float, *options: str) -> "subprocess.Popen[str]":
        program = Path(one_clientapp.__file__)
        command = [
            sys.executable,
            "-I",
            "-S",
            str(program),
            str(self.folder),
            sys.executable,
            "-c",
            CLIENTAPP,
        ]
        process = subprocess.Popen(
            [*command, str(self.log), str(seconds), *options], stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    @property
    def starts(self) -> list[int]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [int(line.split()[0]) for line in lines]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    for process in device.processes:
        process.kill()
        process.communicate()


def test_one_is_at_work_one_waits_and_another_ends_at_once(device):
    first = device.start(600)
    eventually(lambda: device.starts == [first.pid])
    second = device.start(0)
    eventually((device.folder / "node.next").exists)
    time.sleep(0.5)
    third = device.start(0)
    assert third.wait(WAIT) == one_clientapp.BUSY
    assert "this one ends, and Flower starts it again" in third.stderr.read()
    assert second.poll() is None and device.starts == [first.pid]
    first.kill()
    assert second.wait(WAIT) == 0
    # The process that waited became the ClientApp itself.
    assert device.starts == [first.pid, second.pid]
    fourth = device.start(0)
    assert fourth.wait(WAIT) == 0


def test_who_waits_has_loaded_nothing(device):
    first = device.start(600)
    eventually(lambda: device.starts == [first.pid])
    second = device.start(0)
    eventually((device.folder / "node.next").exists)
    assert psutil.Process(second.pid).memory_full_info().uss < 12e6


def test_what_a_clientapp_leaves_behind_does_not_hold_its_turn(device):
    # Forked, as a data loader's worker is: with the descriptor of the lock.
    program = Path(one_clientapp.__file__)
    code = "import os, time\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\n    time.sleep(600)"
    command = [sys.executable, "-I", "-S", str(program), str(device.folder), sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    try:
        # Nobody waits for it, as Flower's launcher does not.
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        assert psutil.pid_exists(worker)
        assert device.start(0).wait(WAIT) == 0
        assert len(device.starts) == 1
    finally:
        os.kill(worker, signal.SIGKILL)
        process.wait()


def test_nodes_that_share_a_folder_do_not_wait_for_each_other(device):
    first = device.start(600, "--runtime-api-address", "127.0.0.1:1")
    eventually(lambda: device.starts == [first.pid])
    second = device.start(0, "--runtime-api-address", "127.0.0.1:2")
    assert second.wait(WAIT) == 0


class Node:
    """Flower's own state of a SuperNode behind its own HTTP interface, in this process."""

    def __init__(self) -> None:
        import uvicorn
        from flwr.supercore.object_store import ObjectStoreFactory
        from flwr.supernode.main import create_app
        from flwr.supernode.nodestate import NodeStateFactory

        factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
        self.state: Any = factory.state()
        self.port = processes.free_port()
        config = uvicorn.Config(create_app(factory), port=self.port, log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def create_task(self) -> int:
        from flwr.supercore.constant import TaskType

        task = self.state.create_task(task_type=TaskType.CLIENT_APP, run_id=1, fab_hash="hash")
        assert task is not None
        return int(task)


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    node.thread.start()
    try:
        eventually(lambda: node.server.started)
        yield node
    finally:
        node.server.should_exit = True
        node.thread.join()


def test_flower_takes_a_sign_of_life_for_a_task_that_is_ones_own_and_for_no_other(node):
    task = node.create_task()
    token = node.state.claim_task(task)
    assert one_clientapp._sign_of_life(node.address, token, "")
    assert not one_clientapp._sign_of_life(node.address, "another", "")
    node.state.finish_task(task, "failed", "")
    assert not one_clientapp._sign_of_life(node.address, token, "")


def test_a_node_that_does_not_answer_has_not_said_no(node):
    assert one_clientapp._sign_of_life(f"127.0.0.1:{processes.free_port()}", "token", "")
    assert one_clientapp._sign_of_life("nonsense", "token", "")


def test_a_clientapp_that_is_stopped_shows_no_life():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        assert not one_clientapp._is_stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: one_clientapp._is_stopped(process.pid))
    finally:
        process.kill()
        process.wait()
    assert not one_clientapp._is_stopped(process.pid)


def test_who_waited_ends_when_its_task_has_gone_to_another(node, device, monkeypatch):
    from flwr.supercore.corestate import in_memory_corestate

    options = ("--runtime-api-address", node.address, "--token")
    first = device.start(600, *options, node.state.claim_task(node.create_task()))
    eventually(lambda: device.starts == [first.pid])
    task = node.create_task()
    second = device.start(600, *options, node.state.claim_task(task))
    eventually(lambda: next(device.folder.glob("*.next"), None) is not None)
    assert second.poll() is None
    node.state.finish_task(task, "failed", "")
    assert second.wait(WAIT) == one_clientapp.BUSY
    assert "its task was given to another" in second.stderr.read()
    assert in_memory_corestate.HEARTBEAT_DEFAULT_INTERVAL > 4 * one_clientapp.BEAT_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("bounded", [True, False])
def test_a_start_that_takes_too_long_for_flower_starts_one_clientapp_and_not_more_and_more(
    node, tmp_path, monkeypatch, bounded
):
    from flwr.supercore.corestate import in_memory_corestate

    # A fifth of Flower's times, with a start that takes four of them.
    monkeypatch.setattr(in_memory_corestate, "HEARTBEAT_DEFAULT_INTERVAL", 6)
    log = tmp_path / "starts"
    (tmp_path / "sitecustomize.py").write_text(SLOW.format(log=str(log), seconds=24))
    tools = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment = os.environ | {
        "PATH": os.pathsep.join([supervisor.one_at_a_time(tmp_path), *tools] if bounded else tools),
        "PYTHONPATH": str(tmp_path),
        "FLWR_HOME": str(tmp_path),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    task = node.create_task()
    command = [str(Path(sys.executable).with_name("flower-superexec")), "--insecure"]
    launcher = subprocess.Popen(
        [*command, "--runtime-api-address", node.address, "--parent-pid", str(os.getpid())], env=environment
    )
    alive: list[int] = []
    try:
        eventually(log.exists)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            starts = [int(line) for line in log.read_text().split()]
            alive.append(sum(map(psutil.pid_exists, starts)))
            # The state forgets a claim when it is looked at, as its SuperNode looks twice a second.
            node.state.get_tasks(task_ids=[task])
            time.sleep(0.5)
    finally:
        children = psutil.Process(launcher.pid).children(recursive=True)
        launcher.kill()
        launcher.wait()
        for each in children:
            with suppress(psutil.Error):
                each.kill()
    # What Flower does by itself; when it does not any more, the program that bounds it can go.
    assert (max(alive) == 1) is bounded, alive
    assert (len(log.read_text().split()) == 1) is bounded


def test_it_is_quick_and_small_to_start(tmp_path):
    words = shlex.split(
        (Path(supervisor.one_at_a_time(tmp_path)) / "flwr-clientapp").read_text().splitlines()[1]
    )
    assert words[2:4] == ["-I", "-S"]
    program = [sys.executable, "-I", "-S", "-c"]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(one_clientapp.__file__).parent)!r}); import one_clientapp"
    )
    listing = "; print(*sys.modules)"
    modules = subprocess.run([*program, code + listing], capture_output=True, text=True, check=True).stdout
    assert not {"ssl", "http", "json", "argparse", "torch", "flwr", "wash_fl"} & set(modules.split())
