"""The files that a server and a device are set up with fit Flower, systemd, the shell, and each other."""

import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from flwr.cli.flower_config import parse_superlink_connection
from flwr.common.constant import APP_DIR

from wash_fl.deploy import supervisor
from wash_fl.deploy.certificates import AUTHORITY, CERTIFICATE, KEY
from wash_fl.deploy.parts import SUPERVISOR

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
UNITS = {
    "superlink": (ROOT / "server" / "wash-fl-superlink.service", ROOT / "server" / "superlink.env"),
    "supernode": (ROOT / "clients" / "wash-fl-supernode.service", ROOT / "clients" / "supernode.env"),
}
STATE = {"superlink": "wash-fl", "supernode": "wash-fl-node"}
PLACES = ("/opt/wash-fl/", "/etc/wash-fl/", *(f"/var/lib/{name}" for name in STATE.values()))


def read_unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """Section, key, values: the part of systemd's format that these units use."""
    sections: dict[str, dict[str, list[str]]] = {}
    lines = path.read_text().replace("\\\n", " ").splitlines()
    for line in filter(None, (line.strip() for line in lines if not line.startswith("#"))):
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), {})
        else:
            key, _, value = line.partition("=")
            current.setdefault(key, []).append(" ".join(value.split()))
    return sections


def read_environment(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


@cache
def options_of(command: str) -> set[str]:
    """The options that the installed Flower has."""
    process = subprocess.run(
        [str(BIN / command), "--help"], capture_output=True, text=True, timeout=120, check=True
    )
    return set(re.findall(r"--[a-z-]+", process.stdout))


@pytest.fixture(params=sorted(UNITS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def unit(name: str) -> dict[str, dict[str, list[str]]]:
    return read_unit(UNITS[name][0])


@pytest.fixture
def environment(name: str) -> dict[str, str]:
    return read_environment(UNITS[name][1])


def test_a_unit_starts_the_installed_flower_with_options_that_it_has(name, unit):
    (command,) = unit["Service"]["ExecStart"]
    # By way of what looks after the launcher.
    assert command.startswith(f"/opt/wash-fl/venv/bin/python -P -m {SUPERVISOR} flower-{name} ")
    assert find_spec(SUPERVISOR) is not None and f"flower-{name}" in (
        supervisor.SUPERLINK,
        supervisor.SUPERNODE,
    )
    options = re.findall(r"(?<=\s)--[a-z-]+", command)
    assert len(options) > 3
    assert set(options) <= options_of(f"flower-{name}")
    assert "--insecure" not in options


def test_a_server_lets_registered_nodes_in_only_and_keeps_its_state():
    (command,) = read_unit(UNITS["superlink"][0])["Service"]["ExecStart"]
    assert "--enable-supernode-auth" in command and "--database /var/lib/wash-fl/" in command
    for option, file in (("ca-certfile", AUTHORITY), ("certfile", CERTIFICATE), ("keyfile", KEY)):
        assert f"--ssl-{option} /etc/wash-fl/{file} " in command


def test_what_a_unit_takes_from_its_environment_is_there(name, unit, environment):
    (command,) = unit["Service"]["ExecStart"]
    assert set(re.findall(r"\$\{(\w+)\}", command)) <= environment.keys()
    assert unit["Service"]["EnvironmentFile"] == [f"/etc/wash-fl/{name}.env"]
    # Else a value with a space would become two arguments.
    assert all(" " not in value for value in environment.values())


def test_flower_neither_installs_packages_nor_calls_home_and_one_thread_is_used(environment):
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["OMP_NUM_THREADS"] == "1"


def test_flowers_processes_find_each_other_and_what_they_write_is_theirs(name, unit, environment):
    assert environment["PATH"].split(":")[0] == "/opt/wash-fl/venv/bin"
    assert unit["Service"]["User"] == ["wash-fl"]
    assert unit["Service"]["StateDirectory"] == [STATE[name]]
    places = [environment["FLWR_HOME"], *unit["Service"]["WorkingDirectory"]]
    if name == "supernode":
        places.append(environment["WASH_FL_STATE"])
        assert unit["Service"]["StateDirectoryMode"] == ["0700"]
    # Each its own, so that the server's machine can train a member, too.
    assert all(f"{path}/".startswith(f"/var/lib/{STATE[name]}/") for path in places)


def test_a_unit_comes_back_whatever_happens_and_takes_all_of_its_processes_along(unit):
    assert unit["Service"]["Restart"] == ["always"]
    assert unit["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert unit["Service"]["KillMode"] == ["control-group"]
    assert unit["Install"]["WantedBy"] == ["multi-user.target"]


def test_a_clientapp_that_had_too_much_memory_does_not_take_its_supernode_along():
    assert read_unit(UNITS["supernode"][0])["Service"]["OOMPolicy"] == ["continue"]


def test_an_app_that_was_half_unpacked_does_not_outlive_a_restart(unit, environment):
    assert unit["Service"]["ExecStartPre"] == ["/bin/rm -rf ${FLWR_HOME}/apps"]
    # Flower's own place for them, and nothing more: connections and states lie beside it.
    assert APP_DIR == "apps" and environment["FLWR_HOME"].count("/") >= 4


def test_a_unit_is_confined(unit):
    service = unit["Service"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["CapabilityBoundingSet"] == [""]
    for switch in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "RestrictSUIDSGID"):
        assert service[switch] == ["yes"]


def test_a_device_with_a_gpu_still_sees_it():
    service = read_unit(UNITS["supernode"][0])["Service"]
    assert not {"PrivateDevices", "ProtectClock", "DevicePolicy", "MemoryDenyWriteExecute"} & service.keys()


def test_every_path_is_below_the_three_places_that_the_guide_names(name):
    for path in UNITS[name]:
        text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
        paths = re.findall(r"(?<![\w.])/(?:opt|etc|var|home|root|tmp)[\w./-]*", text)
        assert paths and all(each.startswith(PLACES) for each in paths), paths


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_every_line_of_a_unit(name, tmp_path):
    path = UNITS[name][0]
    # The program must exist for systemd to be content, and its path have no space.
    copy, programs = tmp_path / path.name, tmp_path / "bin"
    programs.symlink_to(BIN)
    copy.write_text(path.read_text().replace("/opt/wash-fl/venv/bin/", f"{programs}/"))
    process = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    about = [line for line in process.stderr.splitlines() if path.name in line]
    assert (process.returncode, about) == (0, [])
    copy.write_text(copy.read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
    process = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert "NoNewPrivilege" in process.stderr


def test_the_sample_connection_is_one_that_flower_reads():
    content = tomllib.loads((ROOT / "server" / "flower.toml").read_text())["superlink"]
    assert content["default"] == "fleet"
    connection = parse_superlink_connection(content["fleet"], "fleet")
    environment = read_environment(UNITS["superlink"][1])
    assert connection.address == f"127.0.0.1:{environment['SUPERLINK_PORT']}"
    assert connection.root_certificates == f"/etc/wash-fl/{AUTHORITY}"
    assert not connection.insecure


def test_the_wrapper_of_wash_fl_runs_it_in_the_servers_environment(tmp_path):
    script = (ROOT / "server" / "wash-fl-server").read_text()
    for place in ("/opt/wash-fl", "/etc/wash-fl", "/var/lib/wash-fl"):
        script = script.replace(place, f"{tmp_path}{place}")
    program = tmp_path / "opt/wash-fl/venv/bin/wash-fl"
    for folder in (program.parent, tmp_path / "etc/wash-fl", tmp_path / "var/lib/wash-fl"):
        folder.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$PWD|$FLWR_HOME|$OMP_NUM_THREADS|$#|$2"\n')
    program.chmod(0o755)
    (tmp_path / "etc/wash-fl/superlink.env").write_text(UNITS["superlink"][1].read_text())
    process = subprocess.run(
        ["sh", "-c", script, "wash-fl-server", "serve", "a b"], capture_output=True, text=True, check=True
    )
    assert process.stdout == f"{tmp_path}/var/lib/wash-fl|/var/lib/wash-fl/flower|1|2|a b\n"


def test_the_proxy_lets_nothing_through_but_what_devices_need():
    text = (ROOT / "server" / "nginx.conf").read_text()
    environment = read_environment(UNITS["superlink"][1])
    assert re.findall(r"location (\S+) ", text) == ["/v1/fleet/", "/", "/wash.v1.Exchange/", "/"]
    assert len(re.findall(r"location / \{\s+return 403;\s+\}", text)) == 2
    assert f"proxy_pass https://127.0.0.1:{environment['SUPERLINK_PORT']};" in text
    # The paths are Flower's own.
    from flwr.superlink.routers.control.router import router as control
    from flwr.superlink.routers.fleet.router import router as fleet

    assert {route.path.startswith("/v1/fleet/") for route in fleet.routes} == {True}
    assert {route.path.startswith("/v1/fleet/") for route in control.routes} == {False}
