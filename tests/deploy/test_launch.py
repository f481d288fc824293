"""What is refused before anything is started; a whole fleet is started in the end-to-end tests."""

import fcntl
import json
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from wash_fl.deploy import certificates, launch, parts, processes
from wash_fl.deploy.description import FILE, Description
from wash_fl.deploy.launch import Fleet
from wash_fl.errors import RunError

MARK = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been started; nothing is."""
    calls: list[str] = []

    class Node:
        def wait(self, say: object) -> None:
            calls.append("connected")

    def start_node(self: parts.Parts, member: int, port: int) -> Node:
        calls.append(f"node {member}")
        return Node()

    # Wherever these tests are installed.
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    monkeypatch.setattr(parts.Parts, "start_superlink", lambda self, port, streams: calls.append("superlink"))
    monkeypatch.setattr(parts.Parts, "start_node", start_node)
    monkeypatch.setattr(
        launch.Control, "register", lambda self, key: calls.append(key.name) or f"id of {key.name}"
    )
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a fleet"


def test_a_new_fleet_has_a_key_a_state_and_a_registration_for_each_node(folder, started):
    fleet = Fleet.up(folder, 2)
    assert started == [
        "superlink", "node0.pub", "node1.pub", "node 0", "node 1", "connected", "connected",
    ]  # fmt: skip
    assert Description.load(folder) == fleet.description
    assert fleet.description.nodes == ("id of node0.pub", "id of node1.pub")
    assert all(fleet.parts.key(member).is_file() and fleet.parts.state(member).is_dir() for member in (0, 1))
    assert fleet.certificate.hosts == certificates.ALWAYS


def test_a_fleet_that_was_stopped_starts_with_the_same_keys_and_port(folder, started):
    first = Fleet.up(folder, 2)
    keys = {path.name: path.read_bytes() for path in first.parts.credentials.iterdir()}
    first.parts.database.write_text("what Flower remembers")
    started.clear()
    again = Fleet.up(folder)
    assert again.description == first.description
    assert {path.name: path.read_bytes() for path in again.parts.credentials.iterdir()} == keys
    assert "node0.pub" not in started
    # Without Flower's memory, its nodes are strangers to it.
    first.parts.database.unlink()
    started.clear()
    Fleet.up(folder)
    assert "node0.pub" in started


def test_flowers_command_line_finds_the_superlink(folder, started):
    fleet = Fleet.up(folder, 2)
    from flwr.cli.flower_config import parse_superlink_connection

    assert fleet.control.environment["FLWR_HOME"] == str(fleet.parts.server)
    import tomllib

    config = tomllib.loads((fleet.parts.server / "config.toml").read_text())["superlink"]
    connection = parse_superlink_connection(config[fleet.control.connection], "fleet")
    assert connection.address == fleet.address
    assert Path(str(connection.root_certificates)).is_file()


def test_each_part_has_a_home_of_its_own_and_what_the_caller_adds(folder, started):
    fleet = Fleet.up(folder, 2, env={"MINE": "1"})
    homes = {
        fleet.parts.environment(role, home)["FLWR_HOME"]
        for role, home in [("superlink", fleet.parts.server), ("node 0", fleet.parts.node(0))]
    }
    assert len(homes) == 2
    assert fleet.parts.environment("node 0", fleet.parts.node(0))["MINE"] == "1"


def test_what_is_started_can_be_found_even_if_the_start_is_cut_short(folder, started, monkeypatch):
    def fail(self: parts.Parts, port: int, streams: int) -> None:
        assert Description.load(folder).mark == self.mark
        raise RunError("no.")

    stopped: list[str] = []
    monkeypatch.setattr(parts.Parts, "start_superlink", fail)
    monkeypatch.setattr(launch.processes, "stop_marked", lambda mark, roles=None: stopped.append(mark) or 0)
    with pytest.raises(RunError, match=r"no\."):
        Fleet.up(folder, 2)
    assert set(stopped) == {Description.load(folder).mark}


@pytest.mark.parametrize("place", ["/home/me/my fleet/lib", "/srv/a,b/lib"])
def test_a_place_in_which_flower_keeps_no_database_is_refused(folder, started, refused, monkeypatch, place):
    spec = SimpleNamespace(origin=f"{place}/flwr/__init__.py")
    monkeypatch.setattr(launch, "find_spec", lambda name: spec)
    with refused(RunError, f"{place}/flwr", "space or a comma", "another folder"):
        Fleet.up(folder)
    assert started == []


@pytest.mark.parametrize("members", [-1, 0, 1, 101])
def test_a_size_that_is_none_is_refused(folder, started, refused, members):
    with refused(RunError, f"members = {members}", "from 2 to 100"):
        Fleet.up(folder, members)
    assert not folder.exists()


def test_a_port_that_is_none_or_taken_is_refused(folder, started, refused):
    with refused(RunError, "port = 80", "1024"):
        Fleet.up(folder, 2, port=80)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with refused(RunError, f"port {port}", "--port"):
            Fleet.up(folder, 2, port=port)
    assert started == []
    # The folder is no obstacle to the next attempt.
    Fleet.up(folder, 2)


def test_another_folder_is_left_alone(folder, started, refused):
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    with refused(RunError, str(folder), "not the folder of a fleet"):
        Fleet.up(folder, 2)
    with refused(RunError, "not the folder of a fleet"):
        Fleet.open(folder)
    assert [each.name for each in folder.iterdir()] == ["thesis.tex"]


def test_a_fleet_keeps_its_size(folder, started, refused):
    Fleet.up(folder, 2)
    started.clear()
    with refused(RunError, "2 members, not 3"):
        Fleet.up(folder, 3)
    assert started == []


def test_a_fleet_that_runs_is_not_started_again(folder, started, refused, monkeypatch):
    Fleet.up(folder, 2)
    started.clear()
    monkeypatch.setattr(launch, "pids", lambda mark: {"superlink": [1]})
    with refused(RunError, "runs already", "wash-fl fleet down"):
        Fleet.up(folder)
    assert started == []


def test_an_expired_certificate_is_named_before_anything_is_started(folder, started, refused, monkeypatch):
    fleet = Fleet.up(folder, 2)
    started.clear()
    monkeypatch.setattr(certificates.Certificate, "days_left", property(lambda self: -1.0))
    monkeypatch.setattr(certificates, "make_authority", lambda folder: None)
    with refused(RunError, str(fleet.certificate.path), "expired on", "delete"):
        Fleet.up(folder)
    assert started == []


def test_two_commands_do_not_start_and_stop_at_once(folder, started, refused):
    fleet = Fleet.up(folder, 2)
    with (folder / launch.LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for command in (fleet.down, lambda: Fleet.up(folder)):
            with refused(RunError, "another command"):
                command()
    assert fleet.down() == 0


def test_processes_are_told_apart_by_role_and_a_part_that_is_not_there_is_an_error(folder, refused):
    fleet = Fleet(folder, Description(MARK, 2, 8443))
    assert fleet.pids() == {}
    with refused(RunError, "'superlink'", "none"):
        fleet.kill("superlink")
    for member in (-1, 2):
        with refused(RunError, f"no node {member}", "0 to 1"):
            fleet.stop_node(member)


class Running:
    """Stands for a process of psutil's."""

    def __init__(self, command: str, role: str) -> None:
        self._command, self._role = command, role

    def cmdline(self) -> list[str]:
        return self._command.split()

    def environ(self) -> dict[str, str]:
        return {processes.ROLE: self._role}


@pytest.mark.parametrize(
    ("command", "of", "role"),
    [
        ("/venv/bin/python /venv/bin/flower-superlink --port 1", "superlink", "superlink"),
        ("/venv/bin/python /venv/bin/flwr-serverapp --token x", "superlink", "serverapp"),
        ("/venv/bin/python /venv/bin/flower-supernode", "node 12", "supernode 12"),
        ("/venv/bin/python -P -m wash_fl.deploy.supervisor flower-supernode", "node 0", "supervisor 0"),
        ("/venv/bin/python -I -S /x/one_clientapp.py /x /venv/bin/flwr-clientapp", "node 0", "keeper 0"),
        ("/venv/bin/flwr-clientapp --token flower-superlink", "node 0", "clientapp 0"),
        ("/bin/sleep 1", "node 0", "other 0"),
        ("/bin/sleep 1", "superlink", "other"),
    ],
)
def test_a_role_comes_from_the_program_and_from_what_started_it(command, of, role):
    assert parts._role(Running(command, of)) == role


def test_the_description_is_plain_json(folder, started):
    Fleet.up(folder, 2)
    assert json.loads((folder / FILE).read_text()).keys() == {
        "version", "mark", "members", "port", "nodes", "streams",
    }  # fmt: skip
