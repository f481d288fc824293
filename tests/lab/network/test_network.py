"""Real namespaces, joined: rates, cuts, addresses, and that nothing is left. As root, or not at all."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wash_fl.errors import RunError
from wash_fl.lab.network import network as module
from wash_fl.lab.network.link import Link
from wash_fl.lab.network.network import Network, is_gone

try:
    with Network(1):
        pass
except RunError as reason:
    WHY_NOT = str(reason)
else:
    WHY_NOT = ""

needs_namespaces = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

SEND = (
    "import socket, sys; s = socket.create_connection(('10.77.255.1', int(sys.argv[1])), 5); "
    "s.sendall(bytes(int(sys.argv[2])))"
)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(2) as network:
        namespaces = network.namespaces
        assert not is_gone(namespaces, seconds=0.0)
        yield network
    assert is_gone(namespaces)


def send_bytes(network: Network, device: int, size: int, wait: float = 20.0) -> tuple[str, int, float] | None:
    """Send bytes from a device to the server; return from where, how many came, and in which time."""
    with network.on_server(), socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(wait)
        command = [*network.hosts.way(device), sys.executable, "-c", SEND]
        sender = subprocess.Popen(
            [*command, str(server.getsockname()[1]), str(size)], stderr=subprocess.DEVNULL
        )
        try:
            connection, address = server.accept()
            begin, count = time.monotonic(), 0
            with connection:
                while content := connection.recv(1 << 16):
                    count += len(content)
            return address[0], count, time.monotonic() - begin
        except TimeoutError:
            return None
        finally:
            sender.wait()


@needs_namespaces
def test_a_device_reaches_its_server_at_the_rate_of_its_link_and_its_bytes_are_counted(network):
    network.change(Link(kbit=4000.0), device=1)
    result = send_bytes(network, 1, 500_000)
    assert result is not None
    address, size, seconds = result
    assert (address, size) == ("10.77.1.2", 500_000)
    # As fast as the link at most; how much slower is the machine's affair.
    assert seconds > 500_000 * 8 / 4e6 * 0.8
    (idle_up, idle_down), (up, down) = network.counts()
    assert idle_up.bytes == idle_down.bytes == 0
    # Payload, headers of TCP and IP, and acknowledgements the other way.
    assert 500_000 < up.bytes < 600_000 and 0 < down.bytes < 60_000


@needs_namespaces
def test_a_device_that_is_cut_off_reaches_nobody_and_the_other_one_does(network):
    network.change(Link(is_cut=True), device=0)
    assert send_bytes(network, 0, 10, wait=2.0) is None
    assert send_bytes(network, 1, 10) is not None
    network.change(Link(), device=0)
    assert send_bytes(network, 0, 10) is not None
    assert network.counts()[0][0].losses > 0


@needs_namespaces
def test_a_device_that_moves_comes_from_another_address(network):
    network.move(1)
    result = send_bytes(network, 1, 10)
    assert result is not None and result[0] == "10.77.1.3"


@needs_namespaces
def test_only_the_thread_that_asks_for_it_is_on_the_server_and_what_it_starts(network):
    here = Path("/proc/thread-self/ns/net").readlink()
    places = {}

    def look(name: str) -> None:
        places[name] = Path("/proc/thread-self/ns/net").readlink()

    with network.on_server():
        look("inside")
        thread = threading.Thread(target=look, args=("thread",))
        thread.start()
        thread.join()
    look("after")
    assert places["inside"] == places["thread"] != here
    assert places["after"] == here


@needs_namespaces
def test_who_holds_the_network_ends_with_who_made_it():
    code = (
        "import time; from wash_fl.lab.network.network import Network; n = Network(1); "
        "print(n._process.pid, flush=True); time.sleep(600)"
    )
    maker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    holder = int(maker.stdout.readline())
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{holder}/fd/0").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_network_of_no_device_is_refused(refused):
    for devices in (0, 201):
        with refused(RunError, f"{devices} devices", "1 to 200"):
            Network(devices)


def test_without_its_tools_or_another_system_it_says_what_to_do(refused, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None if name == "nsenter" else name)
    with refused(RunError, "nsenter is missing", "on Linux", "root"):
        Network(1)
    monkeypatch.setattr(module.shutil, "which", lambda name: name)
    monkeypatch.setattr(module.sys, "platform", "darwin")
    with refused(RunError, "the system is darwin", "on Linux"):
        Network(1)


@needs_namespaces
@pytest.mark.skipif(not hasattr(os, "setuid") or os.geteuid() != 0, reason="is about giving rights up")
def test_without_the_right_to_it_says_what_to_do():
    code = (
        "import os; from wash_fl.lab.network.holder import main\n"
        "os.setgid(65534); os.setuid(65534); main(['1', ''])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "cannot make a network namespace" in process.stdout, process.stdout + process.stderr
    assert "as root" in process.stdout
