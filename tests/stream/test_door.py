"""Strangers at the stream port: whatever they open and do not say, members get in, and files are left."""

import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import grpc
import pytest
from test_service import MEMBERS, Server, statuses

from wash_fl.lab.bench.stream_fleet import place_in
from wash_fl.stream import limits
from wash_fl.stream.door import IN_ALL, SPARE, Door, address_of
from wash_fl.stream.service import Service
from wash_fl.stream.wire import PATH

pytestmark = pytest.mark.usefixtures("flower_log")


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.02)


class Silent:
    """Calls that say nothing, each on a connection of its own."""

    def __init__(self, address: str, count: int) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self.channels = [grpc.insecure_channel(address, options=options) for _ in range(count)]
        self._end = False
        self.calls = [each.stream_stream(PATH)(self._nothing(), timeout=60) for each in self.channels]

    def _nothing(self):
        while not self._end:
            time.sleep(0.1)
        yield from ()

    def close(self) -> None:
        self._end = True
        for call in self.calls:
            call.cancel()
        for channel in self.channels:
            channel.close()


def test_members_get_in_whatever_silent_calls_there_are(caplog):
    server = Server()
    with server.service:
        silent = Silent(server.service.address, 4 * MEMBERS + 8 + SPARE)
        try:
            wait_until(lambda: server.service._door.turned_away > 0)
            assert len(server.service._door) <= MEMBERS + SPARE
            for member in range(MEMBERS):
                assert statuses(server.say(server.hello(member))) == ["WELCOME"]
            ended = [each for each in silent.calls if each.done()]
            assert {each.code() for each in ended} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert len(ended) >= 4 * MEMBERS + 8 - MEMBERS
        finally:
            silent.close()
    said = [line for line in caplog.messages if "do not say whose they are" in line]
    assert len(said) == 1 and "127.0.0.1" in said[0], "once a minute, not for every call"


def test_who_says_nothing_is_not_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(limits, "HELLO_SECONDS", 0.3)
    server = Server()
    with server.service:
        silent = Silent(server.service.address, 2)
        try:
            wait_until(lambda: caplog.text.count("it did not say who it is") == 2)
            wait_until(lambda: len(server.service._door) == 0)
        finally:
            silent.close()


HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client says first: the preface, and settings that change nothing."""

PROGRAM = textwrap.dedent(
    """
    import os, resource, sys, time
    sys.path.insert(0, sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    from wash_fl.stream import limits
    limits.HELLO_SECONDS = limits.IDLE_SECONDS = 2.0
    from test_service import Server, statuses
    server = Server()
    with server.service:
        print(server.service.address, flush=True)
        sys.stdin.readline()
        open(os.devnull).close()  # a file is left for what else has to be opened
        print(len(os.listdir("/proc/self/fd")), flush=True)
        for _ in range(100):
            try:
                found = statuses(server.say(server.hello(0)))
                break
            except Exception:
                time.sleep(0.2)
        print(found, flush=True)
    """
)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="how many files are open is not told")
@pytest.mark.parametrize("preface", [b"", HTTP_2], ids=["nothing", "no call"])
def test_connections_that_say_nothing_leave_files_and_room_for_members(preface):
    # In a process of its own: its limit of open files is what strangers would use up.
    program = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    sockets = []
    try:
        host, port = process.stdout.readline().strip().rsplit(":", 1)
        for _ in range(250):
            try:
                sockets.append(socket.create_connection((host, int(port)), timeout=1.0))
                sockets[-1].sendall(preface)
            except OSError:  # refused at once
                continue
        print("go", file=process.stdin, flush=True)
        assert int(process.stdout.readline()) < 190
        assert process.stdout.readline().strip() == "['WELCOME']"
        assert process.wait(20) == 0
    finally:
        for each in sockets:
            each.close()
        process.kill()
        process.wait()


def test_who_does_not_even_begin_with_tls_is_hung_up_on(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "HELLO_SECONDS", 1.0)
    server = Server()
    server.service = Service(server.service._guard, place_in(tmp_path), members=MEMBERS, deadline=1.0)
    with server.service:
        host, port = server.service.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=10.0) as silent:
            assert silent.recv(1) == b"", "the server ends it, long before this side has had enough"


# The rule


def test_a_call_too_many_of_an_address_takes_the_place_of_its_oldest():
    door = Door(members=2)
    for number in range(door.most_of_one):
        assert door.enter(number, "ipv4:192.0.2.7:1") is None
    assert door.enter("other", "ipv4:192.0.2.8:1") is None
    assert door.enter("more", "ipv4:192.0.2.7:9") == 0
    assert len(door) == door.most_of_one + 1 and door.turned_away == 1


def test_all_members_may_be_behind_one_address():
    door = Door(members=50)
    assert [door.enter(member, "ipv4:192.0.2.7:1") for member in range(50)] == [None] * 50


def test_of_many_addresses_the_oldest_makes_room():
    door = Door(members=2)
    outs = [door.enter(number, f"ipv4:192.0.{number}.7:1") for number in range(2 + IN_ALL + 3)]
    assert outs == [None] * (2 + IN_ALL) + [0, 1, 2]


def test_who_has_proven_itself_or_is_gone_takes_no_place():
    door = Door(members=1)
    for number in range(500):
        assert door.enter(number, "ipv4:192.0.2.7:1") is None
        door.leave(number)
        door.leave(number)
    assert len(door) == 0 == door.turned_away


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:4711", "192.0.2.7"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:4711", "2001:db8:1:2::"),
        ("ipv6:%5B2001:db8:1:2:ffff::1%5D:4711", "2001:db8:1:2::"),
        ("ipv6:[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::"),
        ("unix:/run/wash.sock", "unix:/run/wash.sock"),
        ("", ""),
    ],
)
def test_an_address_is_that_of_whom_it_belongs_to(peer, address):
    assert address_of(peer) == address


@pytest.mark.skipif(limits.resource is None, reason="this system bounds no files")
@pytest.mark.parametrize(("files", "expected"), [(200, 100), (100_000, 264), (1, 1), (-1, 264)])
def test_connections_take_half_of_the_files_at_most(monkeypatch, files, expected):
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (files, files))
    assert dict(limits.server_options(4))["grpc.max_allowed_incoming_connections"] == expected
