"""Which wash_fl runs: version and hash tell two apart, and a device with another says which is older."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wash_fl import sources
from wash_fl.errors import ExchangeError
from wash_fl.sources import PACKAGE, Sources, digest_of, own_sources, refuse_other_sources

HERE = Sources("1.2.0", "0123456789abcdef")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of three files, one of them the laboratory's."""
    for name in ("__init__", "core/mix", "lab/bench"):
        path = tmp_path / "pack" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"NAME = {name!r}\n")
    return tmp_path / "pack"


def test_the_hash_is_of_the_code_that_a_run_needs_and_of_nothing_else(package: Path) -> None:
    before = digest_of(package)
    (package / "lab" / "bench.py").write_text("something else\n")
    (package / "data.json").write_text("{}")
    (package / "core" / "mix.cpython-311.pyc").write_bytes(b"compiled")
    (package / "__init__.py").write_bytes(b"NAME = '__init__'\r\n")
    assert digest_of(package) == before and len(before) == 16
    (package / "core" / "mix.py").write_text("NAME = 'core/mjx'\n")
    assert digest_of(package) != before


def test_what_is_in_another_file_is_another_hash(package: Path) -> None:
    before = digest_of(package)
    (package / "core" / "mix.py").rename(package / "core" / "mix2.py")
    assert digest_of(package) != before
    (package / "core" / "mix2.py").rename(package / "core" / "mix.py")
    assert digest_of(package) == before


def test_a_copy_of_the_package_elsewhere_is_the_same(tmp_path: Path) -> None:
    shutil.copytree(
        PACKAGE, tmp_path / "wash_fl", ignore=shutil.ignore_patterns("__pycache__", "lab", "data")
    )
    command = "from wash_fl.sources import own_sources as own, PACKAGE; print(PACKAGE); print(own())"
    process = subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    where, text = process.stdout.splitlines()
    assert Path(where) == (tmp_path / "wash_fl").resolve()
    assert Sources.from_text(text) == own_sources()


@pytest.mark.parametrize(
    ("device", "server", "older"),
    [
        ("1.2.0", "1.10.0", "the device's"),
        ("2.0", "1.10.0", "the server's"),
        ("1.2.1", "1.2", "the server's"),
        ("1.2.0rc1", "1.2.0", ""),
        ("unknown", "1.2.0", ""),
    ],
)
def test_another_version_says_which_is_older(device: str, server: str, older: str) -> None:
    said = Sources(device, "a").difference(Sources(server, "b"))
    assert said.startswith(f"this device has wash_fl {device} and the server {server}")
    assert said.endswith(f", so {older} is the older" if older else server)


def test_other_code_of_the_same_version_is_told_by_its_hash() -> None:
    said = HERE.difference(Sources("1.2.0", "fedcba9876543210"))
    assert "1.2.0" in said and "0123456789abcdef" in said and "fedcba9876543210" in said
    assert HERE.difference(HERE) == ""


def test_where_there_is_no_source_to_be_read_the_version_counts(package: Path) -> None:
    for path in package.rglob("*.py"):
        path.unlink()
    assert digest_of(package) == ""
    assert HERE.difference(Sources("1.2.0", "")) == Sources("1.2.0", "").difference(HERE) == ""


def test_the_refusal_is_one_sentence_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "own_sources", lambda: HERE)
    refuse_other_sources("")
    refuse_other_sources(str(HERE))
    with pytest.raises(
        ExchangeError, match=r"1\.3\.0, so the device's is the older: install .*--ship-code\.$"
    ):
        refuse_other_sources("1.3.0 0123456789abcdef")
    for text in ("1.2.0", "1.2.0 a b", " a", "x" * 900):
        with pytest.raises(ExchangeError, match="update the older side"):
            refuse_other_sources(text)
