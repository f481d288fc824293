"""What the README and the docs tell a user to write or type works as it stands there."""

import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict
from PIL import Image
from typer.testing import CliRunner

import wash_fl
from wash_fl.cli import app as command_line
from wash_fl.compare.trainer import Trainer
from wash_fl.config import RunConfig, fields
from wash_fl.export import ModelCard, Normalization
from wash_fl.planes.in_process import InProcessGrid
from wash_fl.tasks.task import load_task

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def python_block(name: str) -> str:
    (block,) = re.findall(rf"```python\n# {re.escape(name)}\n(.*?)```", README, re.DOTALL)
    return str(block)


def load(path: Path, code: str) -> Any:
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_task_in_the_readme_trains_an_averaged_model(tmp_path: Path) -> None:
    path = tmp_path / "my_task.py"
    path.write_text(python_block("my_task.py"))
    assert load_task(str(path)).classes == ("barolo", "grignolino", "barbera")
    config = RunConfig.from_mapping({"task": str(path), "rounds": 10, "local-steps": 10, "p": 0.2})
    assert Trainer(config).run().recalibrated > 0.9


def test_the_flower_app_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine: Any = types.ModuleType("my_app")
    mine.Net = lambda: torch.nn.Linear(4, 2)
    mine.batches = lambda context, steps: [(torch.ones(8, 4), torch.ones(8, dtype=torch.long))] * steps
    monkeypatch.setitem(sys.modules, "my_app", mine)
    client = load(tmp_path / "client_app.py", python_block("client_app.py"))
    server = load(tmp_path / "server_app.py", python_block("server_app.py"))
    monkeypatch.setenv("WASH_FL_STATE", str(tmp_path / "state"))
    grid = InProcessGrid(client.app, members=4)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    seen: dict[str, Any] = {}
    start = wash_fl.WashStrategy.start

    def watch(*given: Any, **options: Any) -> Any:
        seen["result"] = start(*given, **options)
        return seen["result"]

    monkeypatch.setattr(wash_fl.WashStrategy, "start", watch)
    server.app(grid, context)
    losses = [metrics["loss"] for _, metrics in sorted(seen["result"].train_metrics_clientapp.items())]
    assert len(losses) == 10
    assert losses[-1] < losses[0]


def test_the_program_for_a_device_in_the_docs_runs(
    tmp_path: Path, write_model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "inference.md").read_text()
    (code,) = re.findall(r"```python\n# answers.py\n(.*?)```", page, re.DOTALL)
    normalization = Normalization(mean=(0.5,), std=(0.25,))
    card = ModelCard(classes=("cat", "dog"), input_shape=(3, 4, 4), normalization=normalization)
    write_model(tmp_path / "model.onnx", card)
    Image.new("RGB", (4, 4), (250, 20, 30)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    load(tmp_path / "answers.py", code)
    assert re.fullmatch(r"(cat|dog) \[\S+ +\S+\]\n", capsys.readouterr().out)


def commands(text: str) -> list[str]:
    """Every wash-fl command line in a text, indented or in backticks."""
    lines = re.findall(r"^    (wash-fl .*)$", text, re.MULTILINE) + re.findall(r"`(wash-fl [^`]+)`", text)
    found = [part.split("#")[0].strip() for line in lines for part in line.split(";")]
    # "wash-fl layout 1" and the like name a format that is hashed, not a command.
    return [each for each in found if not re.fullmatch(r"wash-fl [a-z]+ \d", each)]


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{each.name}" for each in (ROOT / "docs").glob("*.md"))]
)
def test_commands_and_options_in_the_docs_exist(page: str) -> None:
    for command in commands((ROOT / page).read_text()):
        words = command.split()[1:]
        path = words[:2] if words[0] in ("bench", "fleet") and len(words) > 1 else words[:1]
        shown = CliRunner().invoke(command_line, [*path, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, command
        for option in (word for word in words if word.startswith("--") and word != "--help"):
            assert option in shown.output, command


def test_options_named_in_the_docs_exist() -> None:
    helps = [
        CliRunner().invoke(command_line, [*command, "--help"], env={"COLUMNS": "200"}).output
        for command in (["predict"], ["bench", "inference"])
    ]
    others = {"node-config", *re.findall(r"--([a-z-]+)", " ".join(helps))}
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for option in re.findall(r"`--([a-z-]+)", page.read_text()):
            assert option in fields() or option in others, f"{page.name}: --{option}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"`((?:docs|wash_fl|tests|clients|server|proto)/[\w./-]*)`", page.read_text()):
            assert (ROOT / name).exists() or (ROOT / "wash_fl" / name).exists(), f"{page.name}: {name}"
