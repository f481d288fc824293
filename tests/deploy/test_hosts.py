"""A fleet whose parts are in networks of their own: what listens where, and how a node gets there."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from wash_fl.deploy import certificates, launch, parts, processes
from wash_fl.deploy.hosts import Hosts
from wash_fl.deploy.launch import Fleet
from wash_fl.stream import place

HOSTS = Hosts(listen="0.0.0.0", address="10.77.255.1", ways=(("enter", "first"), ("enter", "second")))


class Command:
    """A process that would have been started."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], way: Sequence[str]) -> None:
        self.words, self.environment, self.way = list(words), dict(environment), list(way)

    def after(self, option: str) -> str:
        return self.words[self.words.index(option) + 1]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """What is started, of which nothing is."""
    calls: list[Command] = []

    def start(
        words: Sequence[str], environment: Mapping[str, str], log: Path, *, way: Sequence[str] = ()
    ) -> Any:
        calls.append(Command(words, environment, way))
        log.write_bytes(b"SuperNode ID: 7\n")
        return type("Running", (), {"poll": lambda self: None})()

    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    monkeypatch.setattr(parts.processes, "start", start)
    monkeypatch.setattr(parts.processes, "wait_until_healthy", lambda *arguments, **options: None)
    monkeypatch.setattr(parts.StartingNode, "_output", lambda self: b"SuperNode ID: 7")
    monkeypatch.setattr(launch.Control, "register", lambda self, key: key.name)
    return calls


def test_nodes_are_started_on_their_machines_and_find_the_server_at_its_address(tmp_path, commands):
    fleet = Fleet.up(tmp_path / "fleet", 2, hosts=HOSTS)
    superlink, *nodes = commands
    assert superlink.way == [] and superlink.after("--host") == "0.0.0.0"
    streams = fleet.description.streams
    assert superlink.environment[place.LISTEN] == f"0.0.0.0:{streams}"
    assert superlink.environment[place.ADDRESS] == f"10.77.255.1:{streams}"
    assert [each.way for each in nodes] == [["enter", "first"], ["enter", "second"]]
    assert {each.after("--superlink") for each in nodes} == {f"10.77.255.1:{fleet.description.port}"}
    # Its certificate is for that address, and for the commands beside it.
    assert fleet.certificate.hosts == ("10.77.255.1", *certificates.ALWAYS)
    assert fleet.address == f"127.0.0.1:{fleet.description.port}"


def test_by_default_all_of_it_is_on_the_loopback_interface(tmp_path, commands):
    fleet = Fleet.up(tmp_path / "fleet", 2)
    superlink, *nodes = commands
    assert superlink.after("--host") == "127.0.0.1" and {tuple(each.way) for each in commands} == {()}
    assert superlink.environment[place.LISTEN].startswith("127.0.0.1:")
    assert {each.after("--superlink") for each in nodes} == {fleet.address}
    assert fleet.certificate.hosts == certificates.ALWAYS


def test_the_words_before_a_command_become_the_command(tmp_path):
    log = tmp_path / "log"
    process = processes.start(["python", "-c", "print('here')"], {}, log, way=["env", "A=1"])
    assert process.wait(60) == 0 and log.read_text() == "here\n"
    with pytest.raises(FileNotFoundError):
        processes.start(["python"], {}, log, way=["no-such-way"])
    assert subprocess.list2cmdline(process.args).startswith("env A=1 ")  # type: ignore[arg-type]
