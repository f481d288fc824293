"""The commands of the example's README, in their order, as they stand there; only Flower is left out."""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.runs.folder import RunFolder

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_model"


def test_the_commands_train_a_good_model_that_names_a_new_bottle(
    tmp_path, monkeypatch, capsys, simulated_here
):
    shutil.copy(EXAMPLE / "wine.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    (\S.*)$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    said = {}
    for command in commands:
        program, *words = shlex.split(command)
        if program == "python":
            (script,) = words
            runpy.run_path(script, run_name="__main__")
            said[command] = capsys.readouterr().out
            continue
        assert program == "wash-fl"
        result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert result.exit_code == 0, (command, result.output, result.exception)
        said[words[0]] = result.output
    assert list(said) == ["simulate", "evaluate", "export", "python wine.py", "predict"]
    accuracy = RunFolder.open(Path("runs/wine")).summary()["accuracy"]
    assert accuracy["averaged"] >= 0.9
    assert re.search(r"averaged \(ONNX\)[^\d]*9\d\.|averaged \(ONNX\)[^\d]*100\.", said["evaluate"])
    assert "100.00% equal answers" in said["export"]
    (vineyard,) = re.findall(r"of (\w+)$", said["python wine.py"].strip())
    assert re.search(rf"bottle.npy +│ +{vineyard}", said["predict"])


@pytest.mark.parametrize("name", ["CLASSES", "INPUT_SHAPE", "model", "train_data", "test_data"])
def test_the_file_has_the_five_names_and_a_file_without_one_is_refused_by_its_name(name, tmp_path):
    path = tmp_path / "wine.py"
    code = (EXAMPLE / "wine.py").read_text()
    assert re.search(rf"^(?:def )?{name}\b", code, re.MULTILINE)
    path.write_text(code + f"\ndel {name}\n")
    result = CliRunner().invoke(app, ["simulate", "--task", str(path)])
    assert result.exit_code == 1 and f"has no {name}" in str(result.exception)
