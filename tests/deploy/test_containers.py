"""The files for containers fit what they copy, Flower's commands, the units, and each other.

Docker itself is not needed. What it would add, nobody has tried: each file and the page say so.
"""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_units import ROOT, UNITS, options_of, read_environment, read_unit
from wash_fl.deploy import supervisor
from wash_fl.deploy.certificates import AUTHORITY, CERTIFICATE, KEY
from wash_fl.deploy.parts import SUPERVISOR
from wash_fl.stream import place

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILES = {
    "server/Dockerfile": "superlink",
    "clients/Dockerfile": "supernode",
    "clients/jetson.Dockerfile": "supernode",
}
COMPOSE = ("server/compose.yaml", "clients/compose.yaml", "clients/compose.jetson.yaml")
JETSON = (ROOT / "docs" / "jetson.md").read_text()
PAGE = (ROOT / "docs" / "containers.md").read_text()

# Of the Compose Specification, what these files use.
TOP = {"name", "services", "volumes"}
SERVICE = {
    "build", "cap_drop", "command", "depends_on", "environment", "group_add", "healthcheck", "image", "init",
    "network_mode", "ports", "read_only", "restart", "runtime", "security_opt", "stop_grace_period", "tmpfs",
    "volumes",
}  # fmt: skip
BUILD = {"args", "context", "dockerfile"}
HEALTHCHECK = {"interval", "retries", "start_period", "test", "timeout"}


def instructions(path: str) -> list[tuple[str, str]]:
    """Every instruction of a Dockerfile with its arguments, on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / path).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (word, " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def arguments(path: str, instruction: str) -> list[str]:
    return [rest for word, rest in instructions(path) if word == instruction]


def compose(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return content


def travels(path: str) -> bool:
    """Whether a path gets past .dockerignore: the last pattern that fits decides."""
    result = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            if fnmatch(path, pattern) or path.startswith(f"{pattern}/") or fnmatch(Path(path).name, pattern):
                result = line.startswith("!")
    return result


@pytest.fixture(params=DOCKERFILES)
def dockerfile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_copied_is_there_travels_to_the_builder_and_suffices(dockerfile):
    sources = [each for line in arguments(dockerfile, "COPY") for each in line.split()[:-1]]
    assert sources
    for each in sources:
        assert (ROOT / each).exists() and travels(each), each
    # What a build of the package takes: its own files, and those that go along in the wheel.
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needs = {*hatch["force-include"], *hatch["packages"], PROJECT["readme"], *PROJECT["license-files"]}
    assert all(any(f"{each}/".startswith(f"{source}/") for source in sources) for each in needs)
    assert not travels("docs") and not travels(".venv") and not travels("wash_fl/__pycache__")


def test_python_and_pytorch_are_what_the_package_asks_for(dockerfile):
    lowest = PROJECT["requires-python"].removeprefix(">=")
    (image,) = arguments(dockerfile, "FROM")
    if match := re.match(r"python:(\d+\.\d+)-", image):
        assert f"Programming Language :: Python :: {match[1]}" in PROJECT["classifiers"]
    else:
        assert image == "${BASE}"
        (torch,) = (each for each in PROJECT["optional-dependencies"]["client"] if each.startswith("torch"))
        words = f"Python {lowest} or newer, and PyTorch {torch.removeprefix('torch>=')} or newer"
        assert words in (ROOT / dockerfile).read_text()
        assert f"Python {lowest}" in JETSON


def test_the_extra_that_is_installed_exists_and_arm_gets_no_cuda(dockerfile):
    (install,) = (line for line in arguments(dockerfile, "RUN") if "pip install" in line)
    extras = re.findall(r"'\.\[(\w+)\]'", install)
    assert extras == ["server" if dockerfile.startswith("server") else "client"]
    assert extras[0] in PROJECT["optional-dependencies"]
    constraints = "/tmp/constraints.txt" if "jetson" in dockerfile else "clients/arm64.txt"
    assert f"--constraint {constraints}" in install


def test_the_part_is_started_by_what_looks_after_its_launcher(dockerfile):
    entrypoint = ast.literal_eval(arguments(dockerfile, "ENTRYPOINT")[0])
    assert entrypoint[1:] == ["-P", "-m", SUPERVISOR]
    command = ast.literal_eval(arguments(dockerfile, "CMD")[0])
    assert command[0] in (supervisor.SUPERLINK, supervisor.SUPERNODE)
    assert command[0] == f"flower-{DOCKERFILES[dockerfile]}"
    assert {each for each in command if each.startswith("--")} <= options_of(command[0])


def test_a_container_has_the_units_environment_and_is_nobodys_root(dockerfile):
    expected = read_environment(UNITS[DOCKERFILES[dockerfile]][1])
    environment = dict(pair.split("=", 1) for line in arguments(dockerfile, "ENV") for pair in line.split())
    for name in ("SUPERLINK", "MEMBER", "SUPERLINK_HOST", "SUPERLINK_PORT", "PATH"):
        expected.pop(name, None)
    assert expected.items() <= environment.items()
    assert arguments(dockerfile, "USER") == ["10001"]
    assert "--uid 10001" in arguments(dockerfile, "RUN")[0] and "10001" in PAGE
    (volume,) = arguments(dockerfile, "VOLUME")
    assert environment["FLWR_HOME"].startswith(f"{volume}/")


def test_the_server_starts_as_its_unit_does():
    (unit,) = read_unit(UNITS["superlink"][0])["Service"]["ExecStart"]
    environment = read_environment(UNITS["superlink"][1])
    words = unit.replace("${SUPERLINK_HOST}", environment["SUPERLINK_HOST"])
    words = words.replace("${SUPERLINK_PORT}", environment["SUPERLINK_PORT"])
    assert ast.literal_eval(arguments("server/Dockerfile", "CMD")[0]) == words.split()[4:]


@pytest.mark.parametrize("path", COMPOSE)
def test_compose_files_have_keys_that_the_specification_knows(path):
    content = compose(path)
    assert content.keys() <= TOP and content["services"]
    for service in content["services"].values():
        assert service.keys() <= SERVICE
        assert service.get("build", {}).keys() <= BUILD
        assert service.get("healthcheck", {}).keys() <= HEALTHCHECK
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            # A file beside it, a folder that the page has one make, or a volume of the file's own.
            assert (
                (ROOT / path).parent.joinpath(source).is_file()
                or source == "./credentials"
                or (source in content["volumes"])
            )
        build = service.get("build")
        if build:
            assert (ROOT / build["dockerfile"]).is_file()
            arguments_of_file = {each.partition("=")[0] for each in arguments(build["dockerfile"], "ARG")}
            assert build["args"].keys() <= arguments_of_file


def test_a_device_starts_as_its_unit_does():
    command = compose("clients/compose.yaml")["services"]["supernode"]["command"]
    (unit,) = read_unit(UNITS["supernode"][0])["Service"]["ExecStart"]
    words = [re.sub(r"\$\{(\w+):\?[^}]*\}", r"${\1}", word) for word in command]
    assert words == unit.replace('"', "").split()[4:]
    assert set(re.findall(r"--[a-z-]+", " ".join(words))) <= options_of("flower-supernode")


def test_the_settings_of_compose_are_explained():
    for path in COMPOSE:
        for name in re.findall(r"\$\{(\w+)", (ROOT / path).read_text()):
            assert f"`{name}`" in PAGE + JETSON, (path, name)


def test_the_servers_ports_agree_from_the_proxy_to_the_serverapp():
    content = compose("server/compose.yaml")["services"]
    nginx = (ROOT / "server" / "nginx.conf").read_text()
    listened = re.findall(r"^    listen (\d+) ssl", nginx, re.MULTILINE)
    assert content["superlink"]["ports"] == [f"{port}:{port}" for port in listened]
    environment = content["superlink"]["environment"]
    assert environment.keys() == {place.LISTEN, place.ADDRESS, place.CERTIFICATE, place.KEY, place.AUTHORITY}
    assert environment[place.ADDRESS].endswith(f":{listened[1]}")
    assert f"grpc_pass grpcs://{environment[place.LISTEN]};" in nginx
    # Both are on one loopback interface, and nobody else is.
    assert content["proxy"]["network_mode"] == "service:superlink" and "ports" not in content["proxy"]
    for name, file in ((place.CERTIFICATE, CERTIFICATE), (place.KEY, KEY), (place.AUTHORITY, AUTHORITY)):
        assert environment[name] == f"/etc/wash-fl/{file}"


def test_the_health_of_the_server_is_asked_in_python_that_can_be_read():
    test = compose("server/compose.yaml")["services"]["superlink"]["healthcheck"]["test"]
    assert test[:3] == ["CMD", "/opt/wash-fl/venv/bin/python", "-c"]
    tree = ast.parse(test[3])
    assert "https://localhost:8443/health" in ast.unparse(tree)


@pytest.mark.parametrize("path", [*DOCKERFILES, *COMPOSE])
def test_each_file_says_that_it_was_not_run_on_hardware(path):
    head = " ".join((ROOT / path).read_text().split("\n\n")[0].replace("#", " ").split())
    assert re.search(r"(never|neither built nor) run on hardware", head, re.IGNORECASE)
    assert "was ever run" in PAGE


@pytest.mark.parametrize("path", DOCKERFILES)
def test_a_linter_of_dockerfiles_is_content(path, tmp_path):
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if program is None:
        pytest.skip("hadolint is not installed")
    process = subprocess.run([program, str(ROOT / path)], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, "")
    wrong = tmp_path / "Dockerfile"
    wrong.write_text((ROOT / path).read_text() + "\nRUN sudo apt-get install vim\n")
    assert subprocess.run([program, str(wrong)], capture_output=True, check=False).returncode != 0
