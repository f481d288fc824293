"""The pages on a device's install fit the files that they install, the unit's places, and each other."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("raspberry-pi", "jetson")}
UNIT = (ROOT / "clients" / "wash-fl-supernode.service").read_text()
ENVIRONMENT = (ROOT / "clients" / "supernode.env").read_text()


def commands(text: str) -> list[str]:
    """Every line that is to be typed, continued lines as one."""
    return [
        line.strip() for line in text.replace("\\\n", " ").splitlines() if re.match(r"(    |      )\S", line)
    ]


@pytest.fixture(params=sorted(PAGES))
def page(request: pytest.FixtureRequest) -> str:
    return PAGES[request.param]


def test_a_page_says_that_it_was_not_tried_on_the_hardware(page):
    assert re.search(r"Nothing on this page was ever run on a", page)
    assert "All commands are for" in page


def test_what_comes_out_of_the_checkout_is_there(page):
    paths = re.findall(r"/opt/wash-fl/src/([\w./-]+)", page)
    assert paths and all((ROOT / each).exists() for each in paths), paths


def test_files_are_installed_where_the_unit_looks_for_them():
    lines = [line.split() for line in commands(PAGES["raspberry-pi"]) if line.startswith("install ")]
    installed = {target + source for *_, source, target in lines}
    assert installed == {"/etc/wash-fl/supernode.env", "/etc/systemd/system/wash-fl-supernode.service"}
    assert all((ROOT / "clients" / each.rpartition("/")[2]).is_file() for each in installed)
    for place in ("/etc/wash-fl/supernode.env", "/etc/wash-fl/ca.crt", "/etc/wash-fl/node.key"):
        assert place in UNIT
    assert "/opt/wash-fl/venv/bin/" in UNIT and "python3 -m venv /opt/wash-fl/venv" in PAGES["raspberry-pi"]


def test_no_install_for_training_forgets_the_constraints(page):
    installs = [line for line in commands(page) if "pip install" in line and "uv" not in line.split()]
    assert installs
    assert all("--constraint /opt/wash-fl/src/clients/arm64.txt" in line for line in installs)


def test_removal_takes_all_that_the_install_has_made():
    (removal,) = [line for line in commands(PAGES["raspberry-pi"]) if line.startswith("rm -r ")]
    removed = removal.split()[2:]
    assert set(removed) >= {"/etc/systemd/system/wash-fl-supernode.service", "/etc/wash-fl", "/opt/wash-fl"}
    state = re.search(r"^StateDirectory=(.+)$", UNIT, re.MULTILINE)
    assert state is not None and f"/var/lib/{state[1]}" in removed


def test_the_doctor_has_the_options_that_it_is_given(page):
    lines = [line for line in commands(page) if "wash-fl doctor" in line]
    assert lines
    output = CliRunner().invoke(app, ["doctor", "--help"], env={"COLUMNS": "200"}).output
    for line in lines:
        for option in re.findall(r"--[a-z-]+", line):
            assert option in output, option


def test_the_settings_that_a_page_names_are_in_the_environment_file():
    for name in ("SUPERLINK", "MEMBER"):
        assert f"`{name}`" in PAGES["raspberry-pi"]
        assert re.search(rf"^{name}=", ENVIRONMENT, re.MULTILINE)
