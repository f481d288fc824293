"""What the README and the docs tell a user to write or type works as it stands there."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import typer
from flwr.app import Context, RecordDict
from flwr.cli.app import app as flower
from PIL import Image
from typer.testing import CliRunner

import wash_fl
from wash_fl.cli.main import app as command_line
from wash_fl.config import RunConfig, fields
from wash_fl.errors import WashError
from wash_fl.export import ModelCard, Normalization
from wash_fl.flower.in_process import InProcessGrid
from wash_fl.lab.compare.trainer import Trainer
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
    # Small inputs: with larger ones momentum takes some initial weights to a loss of 0 in the first round.
    batch = torch.full((8, 4), 0.1), torch.ones(8, dtype=torch.long)
    mine.batches = lambda context, steps: [batch] * steps
    monkeypatch.setitem(sys.modules, "my_app", mine)
    client = load(tmp_path / "client_app.py", python_block("client_app.py"))
    server = load(tmp_path / "server_app.py", python_block("server_app.py"))
    monkeypatch.setenv("WASH_FL_STATE", str(tmp_path / "state"))
    grid = InProcessGrid(client.app, members=4)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    results: dict[str, Any] = {}
    start = wash_fl.WashStrategy.start

    def watch(*arguments: Any, **options: Any) -> Any:
        results["result"] = start(*arguments, **options)
        return results["result"]

    monkeypatch.setattr(wash_fl.WashStrategy, "start", watch)
    server.app(grid, context)
    losses = [metrics["loss"] for _, metrics in sorted(results["result"].train_metrics_clientapp.items())]
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


PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
AS_ELSE = r"sudo -u \S+|systemd-run( --\S+)*|docker compose( -f \S+)* exec( -T)? \S+"
"""What runs a command as somebody else, or somewhere else."""

PROGRAMS = ("wash-fl", "wash-fl-server", "flwr", "flower-supernode", "make", "pip", "python")


def typed(text: str) -> list[str]:
    """Every line of a text that is to be typed: indented, and outside the blocks of code."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE)]


def mentioned(text: str) -> list[str]:
    """Every command that a text names in backticks, perhaps without what it needs."""
    commands = re.findall(
        rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    # "wash-fl layout 1" and the like name a format that is hashed, not a command.
    return [each for each in commands if not re.fullmatch(r"wash-fl [a-z]+ \d", each)]


def words_of(line: str) -> list[str]:
    """The words of a command of ours or of Flower's, without what runs it as somebody else; or none."""
    program, *rest = shlex.split(re.sub(rf"^({AS_ELSE}) ", "", line))
    return [Path(program).name, *rest] if Path(program).name in PROGRAMS else []


def parse(tool: typer.Typer, words: list[str], whole: bool) -> dict[str, Any]:
    """Have the real command line read a command, and run nothing; return what it understood.

    A command that is only ``mentioned`` (not ``whole``) may lack what it needs.
    """
    command: click.Command = typer.main.get_command(tool)
    context, rest = None, [re.sub(r"^(RUN|NODE)[_-]ID$", "1", each) for each in words]
    name = "tool"
    try:
        while True:
            context = command.make_context(name, rest, parent=context)
            if not isinstance(command, click.Group):
                return dict(context.params)
            rest = [*context._protected_args, *context.args]
            sub_name, following, rest = command.resolve_command(context, rest)
            assert sub_name is not None and following is not None
            name, command = sub_name, following
    except click.exceptions.Exit as asked_for_help:
        assert asked_for_help.exit_code == 0
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
        if whole:
            raise
    except click.BadOptionUsage as error:
        if whole or isinstance(error, click.NoSuchOption):
            raise
    return {}


def check(line: str, whole: bool) -> None:
    """Fail if a command is none, or has an option, a choice, a target or an extra that does not exist."""
    words = words_of(line)
    if not words:
        return  # of the operating system: it needs a machine of its own
    program, *rest = words
    if program in ("wash-fl", "wash-fl-server"):
        options = parse(command_line, rest, whole)
        values = {name: value for name, value in options.items() if value is not None}
        RunConfig.from_mapping({name: values[name] for name in values if name.replace("_", "-") in fields()})
    elif program == "flwr":
        parse(flower, rest, whole)
    elif program == "flower-supernode":
        process = subprocess.run(
            [Path(sys.executable).with_name(program), "--help"], capture_output=True, text=True, check=True
        )
        assert all(option in process.stdout for option in rest if option.startswith("--"))
    elif program == "make":
        assert re.search(rf"^{rest[-1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        extras = {name for each in re.findall(r"\[([\w,]+)\]", line) for name in each.split(",")}
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert extras <= set(project["optional-dependencies"])
    else:
        assert program == "python"
        if rest[0] == "-c":
            compile(rest[1], line, "exec")
            return
        if rest[0] == "-m":
            rest = [rest[1].replace(".", "/") + ".py"]
        assert any((folder / rest[0]).is_file() for folder in (ROOT, ROOT / "examples" / "own_model"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_the_docs_is_one_that_the_real_command_line_takes(page: Path) -> None:
    for line in typed(page.read_text()):
        check(line, whole=True)
    for line in mentioned(page.read_text()):
        check(line, whole=False)


@pytest.mark.parametrize(
    "line",
    [
        "wash-fl simulate --roundz 3",
        "wash-fl simulate --rounds three",
        "wash-fl simulate --mix shufle",
        "wash-fl simulat",
        "wash-fl predict",
        "wash-fl fleet upp",
        "sudo -u wash-fl wash-fl-server serve --conection fleet",
        "flwr run . --federation-konfig x",
        "flwr supernode enlist",
        "make rum",
        "pip install 'wash-fl[servr]'",
        "python tools/no_such.py",
    ],
)
def test_a_misspelt_command_in_the_docs_would_be_noticed(line: str) -> None:
    with pytest.raises((click.ClickException, WashError, AssertionError)):
        check(line, whole=True)


def test_the_commands_of_the_docs_are_found() -> None:
    text = README + (ROOT / "docs" / "evidence.md").read_text() + (ROOT / "docs" / "fleet.md").read_text()
    lines = typed(text)
    assert "wash-fl simulate --recipe paper" in lines
    assert any("--methods isolated" in line and "--p 0.001" in line for line in lines), "a continued line"
    assert "wash-fl serve --fleet fleet --resume runs/RUN" in mentioned(text)
    assert words_of("sudo -u wash-fl wash-fl-server serve --rounds 20")[:2] == ["wash-fl-server", "serve"]
    assert words_of("docker compose -f a.yaml exec server wash-fl serve")[:2] == ["wash-fl", "serve"]


SHORT = ["--rounds=1", "--local-steps=2", "--train-examples=200", "--test-examples=40"]


@pytest.mark.slow
def test_the_commands_under_use_it_in_the_readme_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated_here: None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text(python_block("my_task.py"))
    (tmp_path / "my_options.toml").write_text("p = 0.2\n")
    section = README.split("## Use it")[1].split("###")[0]
    ran = []
    for line in typed(section):
        program, *words = words_of(line) or ("",)
        # Streams need all members at once, in processes of their own: tests/end_to_end/test_streams.py.
        if program != "wash-fl" or "stream" in words:
            continue
        if "fashion-mnist" in words and not Path("/usr/share/datasets/fashion-mnist").is_dir():
            continue
        if words[0] == "simulate":
            words += [*SHORT, "--run-name", f"RUN{len(ran) or ''}"]
        if words[0] == "compare":
            words += [*SHORT, "--seeds", "0", "--workers", "1"]
            words += [] if "--methods" in words else ["--methods", "isolated,fedavg,wash"]
        if "--int8" in words:
            words += ["--int8-tolerance", "100"]  # of forty examples, one is 2.5 points
        if words[0] == "predict" and "--check" not in words:
            Image.new("L", (8, 8), 128).save(words[2])
        result = CliRunner().invoke(command_line, words, env={"COLUMNS": "200"})
        assert result.exit_code == 0, (line, result.output, result.exception)
        ran.append(words[0])
    assert {"simulate", "evaluate", "report", "predict", "export", "compare", "bench"} <= set(ran)
    assert ran.count("simulate") >= 4
    for path in ("runs/RUN/summary.json", "runs/RUN/report.html", "model.onnx", "wash-and-rivals"):
        assert (tmp_path / path).exists()


def messages() -> list[str]:
    """Every text in the package, with a NUL where a value goes."""
    texts = []
    for path in (ROOT / "wash_fl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [each.value if isinstance(each, ast.Constant) else "\0" for each in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%(?:\.\d)?[sdrgf]", "\0", node.value))
    return texts


def symptoms(text: str) -> list[str]:
    """What the first column of a table quotes."""
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    return [quoted for row in rows for quoted in re.findall(r"`([^`]+)`", row)]


def is_said(symptom: str, texts: list[str]) -> bool:
    pattern = re.compile(".*".join(map(re.escape, symptom.split("..."))), re.DOTALL)
    return any(pattern.search(each) for each in texts)


def test_every_message_that_troubleshooting_quotes_is_one_that_the_package_says() -> None:
    texts, quoted = messages(), symptoms((ROOT / "docs" / "troubleshooting.md").read_text())
    assert len(quoted) > 50
    assert [each for each in quoted if not is_said(each, texts)] == []
    assert not is_said("the run ... exists in ... and is finnished", texts)


def options_of(command: click.Command) -> set[str]:
    """The long options of a command and of those below it."""
    own = {name.removeprefix("--") for each in command.params for name in [*each.opts, *each.secondary_opts]}
    return own.union(*(options_of(each) for each in getattr(command, "commands", {}).values()))


def test_options_named_in_the_docs_exist() -> None:
    options = options_of(typer.main.get_command(command_line))
    for page in PAGES:
        for option in re.findall(r"`--([a-z0-9-]+)", page.read_text()):
            assert option in options | {"node-config", "federation-config"}, f"{page.name}: --{option}"


def test_links_between_pages_lead_somewhere() -> None:
    rooms = "docs|wash_fl|tests|clients|server|proto|tools|examples"
    for page in PAGES:
        for name in re.findall(rf"`((?:{rooms})/[\w./-]*)`", page.read_text()):
            assert (ROOT / name).exists() or (ROOT / "wash_fl" / name).exists(), f"{page.name}: {name}"
