"""The commands of a fleet as a user types them; real fleets are started in the end-to-end tests."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from wash_fl.cli import fleet as cli_fleet
from wash_fl.cli.main import app
from wash_fl.config import RunConfig, fields
from wash_fl.core.recipes import resolve
from wash_fl.deploy import launch, serving
from wash_fl.deploy.certificates import make_authority, make_server_certificate
from wash_fl.deploy.control import Control
from wash_fl.deploy.description import Description
from wash_fl.deploy.new_files import CredentialsError
from wash_fl.deploy.node_keys import make_node_key
from wash_fl.errors import ConfigError, RunError
from wash_fl.runs.folder import RunFolder

MARK = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def wash(*arguments: object, columns: int = 200) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": str(columns)})


def ok(*arguments: object) -> str:
    result = wash(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def error(*arguments: object) -> Exception:
    result = wash(*arguments)
    assert isinstance(result.exception, Exception), result.output
    assert len(str(result.exception).splitlines()) == 1
    return result.exception


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """The folder of a fleet of two that does not run."""
    folder = tmp_path / "fleet"
    make_authority(folder / "credentials")
    make_server_certificate(folder / "credentials", [])
    Description(MARK, 2, 8443, ("11", "12")).save(folder)
    return folder


@pytest.fixture
def running(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as if it ran."""
    monkeypatch.setattr(
        launch, "pids", lambda mark: {"superlink": [1], "supernode 0": [2], "supernode 1": [3]}
    )
    monkeypatch.setattr(Control, "online", lambda self: {"11"})
    return fleet


# Help


@pytest.mark.parametrize(
    "command",
    [("fleet",), ("serve",)]
    + [("fleet", name) for name in ("certificates", "key", "register", "up", "status", "down", "restart")],
)
def test_every_command_has_help_that_fits_the_terminal(command):
    result = wash(*command, "--help", columns=80)
    assert result.exit_code == 0
    assert f"Usage: {' '.join(('root', *command))}" in result.stdout.replace("wash-fl", "root")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_serve_takes_every_option_of_a_run():
    output = ok("serve", "--help")
    assert all(f"--{key}" in output for key in fields())
    assert all(
        option in output for option in ("--fleet", "--connection", "--resume", "--restarts", "--config")
    )


# Credentials


def test_certificates_and_keys_are_made_where_asked_and_their_use_is_said():
    output = ok("fleet", "certificates", "--host", "fleet.example.org", "--host", "10.0.0.1", "--out", "keys")
    assert "keys/ca.crt: valid until" in output and "every device" in output
    assert "keys/server.pem: for fleet.example.org, 10.0.0.1, localhost" in output
    output = ok("fleet", "key", "pi-0", "--out", "keys")
    assert "keys/pi-0: the private key" in output and "wash-fl fleet register pi-0.pub" in output
    assert {each.name for each in Path("keys").iterdir()} == {
        "ca.crt", "ca.key", "server.pem", "server.key", "pi-0", "pi-0.pub",
    }  # fmt: skip


def test_nothing_is_made_twice():
    ok("fleet", "certificates", "--host", "fleet.example.org")
    ok("fleet", "key", "pi-0")
    for command in (("certificates", "--host", "fleet.example.org"), ("key", "pi-0")):
        assert isinstance(error("fleet", *command), CredentialsError)


def test_a_certificate_needs_a_host():
    assert wash("fleet", "certificates").exit_code == 2


def test_a_key_is_registered_by_its_connection(monkeypatch, tmp_path):
    _, public = make_node_key(tmp_path, "pi-0")
    calls: list[Any] = []
    monkeypatch.setattr(Control, "register", lambda self, key: calls.append((self.connection, key)) or "17")
    assert ok("fleet", "register", public, "--connection", "mine") == f"{public}: registered as node 17\n"
    monkeypatch.setattr(Control, "register", lambda self, key: calls.append((self.connection, key)))
    assert ok("fleet", "register", public) == f"{public}: was registered before\n"
    assert calls == [("mine", public), ("", public)]


# A fleet on this machine


def test_down_of_a_fleet_that_does_not_run_is_no_error(fleet):
    for _ in range(2):
        assert ok("fleet", "down") == "nothing of the fleet in fleet runs\n"


@pytest.mark.parametrize("command", [("down",), ("status",), ("restart", "superlink")])
def test_a_folder_that_is_no_fleet_is_an_error(command):
    assert "wash-fl fleet up" in str(error("fleet", *command, "--dir", "nowhere"))
    assert not Path("nowhere").exists()


def test_status_shows_who_runs_and_who_is_connected(running):
    output = ok("fleet", "status")
    (line,) = [line for line in output.splitlines() if "supernode 1" in line]
    assert "3" in line and "no" in line
    content = json.loads(ok("fleet", "status", "--json"))
    assert content["nodes"][0] == {"member": 0, "node": "11", "running": True, "connected": True}
    assert content["processes"]["superlink"] == [1] and content["running"]


def test_status_names_a_part_that_has_died(running, monkeypatch):
    monkeypatch.setattr(launch, "pids", lambda mark: {"supernode 0": [2]})
    lines = ok("fleet", "status").splitlines()
    dead = {part for part in ("superlink", "supernode 0", "supernode 1")
            if any(part in line and "does not run" in line for line in lines)}  # fmt: skip
    assert dead == {"superlink", "supernode 1"}


def test_status_of_a_fleet_that_does_not_run_says_so(fleet):
    assert ok("fleet", "status") == f"nothing of the fleet in {fleet} runs\n"
    content = json.loads(ok("fleet", "status", "--json"))
    assert (content["running"], content["processes"], content["nodes"][0]["connected"]) == (False, {}, None)


def test_status_without_an_answer_still_shows_the_processes(running, monkeypatch):
    def silent(self: Control) -> set[str]:
        raise RunError("no answer.")

    monkeypatch.setattr(Control, "online", silent)
    result = wash("fleet", "status")
    assert result.exit_code == 0 and "supernode 1" in result.stdout and "no answer." in result.stderr


def test_a_part_is_restarted_and_another_is_an_error(running, monkeypatch):
    calls: list[Any] = []
    monkeypatch.setattr(launch.Fleet, "restart_superlink", lambda self: calls.append("superlink"))
    monkeypatch.setattr(launch.Fleet, "start_node", lambda self, member, say: calls.append(member))
    assert "runs again" in ok("fleet", "restart", "superlink")
    assert ok("fleet", "restart", "1") == "node 1 runs again\n"
    assert calls == ["superlink", 1]
    assert "superlink, or the number of a node" in str(error("fleet", "restart", "supernode"))


def test_a_part_of_a_fleet_that_does_not_run_is_not_restarted(fleet):
    assert "does not run" in str(error("fleet", "restart", "0"))


# Runs


class RunRequest:
    """With what a run was asked for; none is run."""

    def __init__(self) -> None:
        self.config: RunConfig
        self.control: Control
        self.restarts = -1

    def serve(self, config: RunConfig, control: Control, on_event: Any, **options: Any) -> RunFolder:
        self.config, self.control, self.restarts = config, control, options["restarts"]
        raise KeyboardInterrupt


@pytest.fixture
def run_request(monkeypatch: pytest.MonkeyPatch) -> RunRequest:
    request = RunRequest()
    monkeypatch.setattr(serving, "serve", request.serve)
    monkeypatch.setattr("wash_fl.checks.run.check", lambda config, **more: [])
    return request


def test_a_run_needs_exactly_one_fleet(run_request):
    for flags in ((), ("--fleet", "fleet", "--connection", "mine")):
        refusal = error("serve", *flags)
        assert isinstance(refusal, ConfigError) and "--fleet DIR" in str(refusal)


def test_a_run_on_a_local_fleet_has_as_many_members_as_it_has_nodes(running, run_request):
    assert wash("serve", "--fleet", "fleet", "--p", "0.3").exit_code == cli_fleet.INTERRUPTED
    assert (
        run_request.config.training.members,
        run_request.config.exchange.p,
        run_request.restarts,
    ) == (2, 0.3, 5)
    assert run_request.control.environment["FLWR_HOME"] == str(running / "server")
    # Each node has a state folder of its own; a common one in the options would win over it.
    assert run_request.config.fleet.state_dir == ""
    assert Path(run_request.config.fleet.run_dir).is_absolute() and run_request.config.fleet.run_name
    refusal = error("serve", "--fleet", "fleet", "--members", "3")
    assert "members = 3 is more than the 2 nodes" in str(refusal)


def test_a_run_on_a_fleet_that_does_not_run_is_refused(fleet, run_request):
    assert "wash-fl fleet up" in str(error("serve", "--fleet", "fleet"))


def test_a_run_on_a_connection_uses_flowers_own_configuration(run_request, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", "/mine")
    assert wash("serve", "--connection", "mine", "--restarts", "0").exit_code == cli_fleet.INTERRUPTED
    assert (run_request.control.connection, run_request.control.environment["FLWR_HOME"]) == (
        "mine",
        "/mine",
    )
    assert (run_request.config.training.members, run_request.restarts) == (4, 0)
    assert wash("serve", "--connection", "mine", "--restarts", "-1").exit_code == 2


def test_a_run_that_did_not_finish_goes_on_with_its_own_options(running, run_request, tmp_path):
    options = {"members": 2, "p": 0.3, "rounds": 7, "run-dir": str(tmp_path / "runs"), "run-name": "cut"}
    run = RunFolder.create(resolve(RunConfig.from_mapping(options), divided=False))
    result = wash("serve", "--fleet", "fleet", "--resume", "runs/cut", "--round-timeout", "7")
    assert result.exit_code == cli_fleet.INTERRUPTED
    assert run_request.config.to_mapping() == {
        **run.config.to_mapping(),
        "run-dir": options["run-dir"],
        "run-name": "cut",
        "round-timeout": 7.0,
    }
    assert f"wash-fl serve --fleet fleet --resume {run.path}" in result.stderr
    assert "other options" in str(error("serve", "--fleet", "fleet", "--resume", "runs/cut", "--p", "0.4"))


def test_a_resumed_run_takes_no_other_file_of_options(running, run_request):
    assert "--config" in str(error("serve", "--fleet", "fleet", "--resume", "run", "--config", "a.toml"))
    assert "not the folder of a run" in str(error("serve", "--fleet", "fleet", "--resume", "run"))


def test_a_run_that_never_began_is_not_said_to_go_on(running, run_request):
    result = wash("serve", "--fleet", "fleet")
    assert "interrupted" in result.stderr and "--resume" not in result.stderr
    assert not Path("runs").exists()
