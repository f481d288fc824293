"""What a user's type checker is told: that this package has types, and those of its public names."""

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import wash_fl

PROGRAM = """
import wash_fl
from wash_fl.export.inference import Predictor

reveal_type(wash_fl.RunConfig.from_mapping({"p": 0.2}))
reveal_type(Predictor("model.onnx").card)
reveal_type(Predictor("model.onnx").card.classes)
p: str = wash_fl.ExchangeConfig().p
"""


def test_the_package_says_that_it_has_types():
    # A type checker takes an installed package without this file for one without types.
    assert files(wash_fl).joinpath("py.typed").is_file()


def test_a_users_file_is_checked_against_them_where_the_package_is_installed(tmp_path: Path) -> None:
    (tmp_path / "users.py").write_text(PROGRAM)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (installed,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (installed / "wash_fl").symlink_to(Path(wash_fl.__file__).parent)
    # What it follows is not looked at again: that is done by `make lint`.
    options = ["--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}"]
    process = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--python-executable", "venv/bin/python", "users.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = process.stdout
    for kind in ("wash_fl.config.RunConfig", "wash_fl.export.metadata.ModelCard", "tuple[str, ...]"):
        assert f'Revealed type is "{kind}"' in lines, lines
    assert 'has type "float", variable has type "str"' in lines, lines
    assert "Found 1 error" in lines, lines
