"""What a run's app holds: a few kilobytes; with its code shipped, the package's source and no data."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from wash_fl.deploy import shipping
from wash_fl.deploy.shipping import app_folder, app_with_code
from wash_fl.errors import RunError
from wash_fl.sources import PACKAGE, own_sources, source_files
from wash_fl.tasks import digits

COMPONENTS = {
    "clients/__init__.py",
    "clients/client_app.py",
    "server/__init__.py",
    "server/server_app.py",
}
OF_FLOWERS = {"pyproject.toml", ".info/CONTENT"}


def bundle(app: Path, folder: Path) -> Path:
    """Have Flower build an app as `flwr run` does."""
    command = "import pathlib, sys; from flwr.cli.build import build_fab_from_disk as build; "
    command += "pathlib.Path(sys.argv[2]).write_bytes(build(pathlib.Path(sys.argv[1])))"
    subprocess.run([sys.executable, "-c", command, app, folder / "app.fab"], check=True)
    return folder / "app.fab"


def test_the_app_is_beside_the_package() -> None:
    assert (app_folder() / "pyproject.toml").is_file()
    assert (app_folder() / "server" / "server_app.py").is_file()


def test_the_app_is_a_few_kilobytes(tmp_path: Path) -> None:
    path = bundle(app_folder(), tmp_path)
    with zipfile.ZipFile(path) as files:
        assert set(files.namelist()) == COMPONENTS | OF_FLOWERS
    assert path.stat().st_size < 12_000


def test_an_app_with_code_is_the_package_without_data_and_laboratory(tmp_path: Path) -> None:
    app = app_with_code(tmp_path / "app")
    path = bundle(app, tmp_path)
    package = {f"{PACKAGE.name}/{each.as_posix()}" for each in source_files()}
    with zipfile.ZipFile(path) as files:
        assert set(files.namelist()) == COMPONENTS | OF_FLOWERS | package
        project = tomllib.loads(files.read("pyproject.toml").decode())
    of_ours = tomllib.loads((app_folder() / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["config"] == of_ours["tool"]["flwr"]["app"]["config"]
    assert path.stat().st_size < 1_500_000


def test_the_code_that_is_shipped_is_what_runs_and_reads_the_data_that_is_installed(tmp_path: Path) -> None:
    app = app_with_code(tmp_path / "app")
    command = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from wash_fl import sources; from wash_fl.tasks import digits;"
        "print(sources.PACKAGE); print(sources.own_sources()); print(len(digits.train_data()))"
    )
    run = [sys.executable, "-c", command, app]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    process = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    where, sources, examples = process.stdout.splitlines()
    assert Path(where) == (app / "wash_fl").resolve()
    assert sources == str(own_sources())
    assert int(examples) == len(digits.train_data())


def test_an_app_that_does_not_say_what_it_includes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app]\n")
    monkeypatch.setattr(shipping, "app_folder", lambda: tmp_path)
    with pytest.raises(RunError, match="install wash-fl again"):
        app_with_code(tmp_path / "app")
    assert not (tmp_path / "app").exists()
