"""Whatever a command line is given, it ends in its answer or in one line: names, files, terminals, Ctrl-C."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from typer.testing import CliRunner

from wash_fl import __main__, errors
from wash_fl.cli import terminal as cli_terminal
from wash_fl.cli.main import app
from wash_fl.config import RunConfig
from wash_fl.deploy import simulation
from wash_fl.deploy.submitting import with_absolute_paths
from wash_fl.errors import RunError
from wash_fl.export.metadata import ModelCard
from wash_fl.runs.folder import AVERAGED, CONFIG, JOURNAL, METRICS, MODEL, SUMMARY, RunFolder

# Wrong arguments


@pytest.fixture
def folder(tmp_path, monkeypatch, write_model) -> Path:
    """A working folder with a run, a model, and all kinds of things that are none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("hello")
    noise = np.random.default_rng(0).bytes(300)
    for name in ("noise.onnx", "noise.npy", "noise.png", "noise.csv", "noise.npz", "noise.toml", "noise.py"):
        (tmp_path / name).write_bytes(noise)
    for name in ("nothing.onnx", "nothing.npy", "nothing.png", "nothing.csv"):
        (tmp_path / name).write_bytes(b"")
    card = ModelCard(classes=("a", "b"), input_shape=(4,), preprocessing="")
    write_model(tmp_path / "model.onnx", card)
    run = RunFolder.create(RunConfig.from_mapping({"run-dir": str(tmp_path), "run-name": "run"}))
    run.log("start", version="1", pid=1)
    for number in (1, 2):
        fields = {"members": {"0": {"loss": 1.0}}, "bytes": {"up_messages": number, "up_values": number}}
        run.log("round", round=number, distance=1.0, **fields)
    shutil.copytree(run.path, tmp_path / "gone-task")
    options = (run.path / CONFIG).read_text().replace('"digits"', '"gone.py"')
    (tmp_path / "gone-task" / CONFIG).write_text(options)
    shutil.copytree(run.path, tmp_path / "damaged")
    for name in (JOURNAL, MODEL, AVERAGED, SUMMARY, METRICS):
        (tmp_path / "damaged" / name).write_bytes(noise)
    shutil.copytree(run.path, tmp_path / "no-options")
    (tmp_path / "no-options" / CONFIG).write_bytes(noise)
    shutil.copytree(run.path, tmp_path / "list")
    for name in (SUMMARY, METRICS):
        (tmp_path / "list" / name).write_text("[]")
    return tmp_path


REFUSED = """
evaluate missing | evaluate file | evaluate empty | evaluate run | evaluate gone-task | evaluate damaged
evaluate no-options
export missing | export file | export empty | export run | export gone-task | export damaged
export damaged --ensemble | export list --ensemble | export run --ensemble | export run --target x86
export run --int8 --target mips | export run -o missing/deep/x.onnx | export run -o file/x.onnx
export run --tolerance nan
report missing | report file | report empty | report run -o file/x.html | report run -o empty
report run --figures file | report run --tensorboard file | report run more
audit missing | audit file | audit empty | audit run | audit damaged | audit run missing | audit run file
predict model.onnx | predict empty noise.npy | predict missing.onnx noise.npy | predict noise.onnx noise.npy
predict nothing.onnx noise.npy | predict file noise.npy | predict model.onnx empty | predict model.onnx file
predict model.onnx noise.npy | predict model.onnx noise.png | predict model.onnx noise.csv
predict model.onnx noise.npz | predict model.onnx nothing.npy | predict model.onnx nothing.png
predict model.onnx nothing.csv | predict model.onnx missing.npy | predict model.onnx noise.npy --stride 0
bench inference missing | bench inference empty | bench inference model.onnx --batch x
bench inference model.onnx --batch 0 | bench inference model.onnx --input missing | bench nope
simulate --config empty | simulate --config noise.toml | simulate --config missing | simulate more
simulate --task missing.py | simulate --task empty | simulate --task= | simulate --model nope
simulate --members 100001 | simulate --seed 99999999999999999999 | simulate --p 1e999
simulate --run-name a/b | simulate --run-name .. | simulate --run-name=\\t | simulate --run-dir file
simulate --run-name run --run-dir . --p 0.9 | simulate --run-name empty2 --run-dir file/deeper
simulate --run-name file --run-dir .
serve | serve --fleet missing | serve --fleet file | serve --fleet empty | serve --fleet empty --connection x
serve --connection x --resume missing | serve --connection x --resume file
serve --connection x --resume no-options
fleet up --dir file | fleet up --members 0 | fleet up --dir new --port 1 | fleet status --dir missing
fleet status --dir file | fleet down --dir missing | fleet restart superlink --dir missing | fleet restart
fleet key a/b | fleet key x --out file | fleet certificates | fleet certificates --host x --out file
fleet register missing | fleet register file | fleet register empty
doctor --superlink x | doctor --member 99 | doctor --root-certificates x
compare | compare --out file | compare --out empty --table | compare --out missing --table
compare --out new --methods nope | compare --out new --vary x | compare --out new --dropout 7
compare --out new --seeds a
"""


@pytest.mark.parametrize(
    "line", [each.strip() for each in REFUSED.replace("\n", "|").split("|") if each.strip()]
)
def test_what_cannot_be_done_is_refused_in_one_line(folder, wash, line):
    result = wash(*(part.replace("\\t", "\t") for part in line.split()))
    assert result.status not in (0, None)
    assert len(result.err.splitlines()) == 1 and result.err.startswith("error: "), result.err
    assert "Traceback" not in result.err + result.out


@pytest.mark.parametrize("damaged", ["damaged", "no-options", "list", "run"])
def test_a_report_of_a_damaged_run_is_made(folder, wash, damaged):
    result = wash("report", damaged)
    assert result.status == 0 and (folder / damaged / "report.html").stat().st_size > 0
    assert bool(result.err) == (damaged != "run")


def test_a_long_message_of_another_library_is_one_line_too(wash, monkeypatch):
    def fail(config: RunConfig, **more: object) -> None:
        raise errors.RunError("one\ntwo\r\nthree\u2028four.")

    monkeypatch.setattr("wash_fl.checks.run.check", fail)
    assert wash("simulate").err == "error: one two three four.\n"


# Click's words


class Spoken(click.UsageError):
    """A usage error that is put in the words of a version of click and typer."""

    def format_message(self) -> str:
        return self.message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("No such command 'simulat'.", "No such command 'simulat'. Did you mean 'simulate'?"),
        (
            "No such command 'simulat'. Did you mean 'simulate'? Did you mean 'simulate'?",
            "No such command 'simulat'. Did you mean 'simulate'?",
        ),
        ("Missing option '--host' (env var: 'None').", "Missing option '--host'."),
        ("Got unexpected extra argument (more)", "Got unexpected extra argument (more)."),
    ],
)
def test_a_usage_error_says_each_thing_once_whatever_version_words_it(words, expected):
    group = click.Group("wash-fl", commands={"simulate": click.Command("simulate")})
    error = Spoken(words, click.Context(group, info_name="wash-fl"))
    assert cli_terminal.usage_message(error) == f"{expected} See wash-fl --help."


def test_an_unknown_option_says_each_thing_once():
    def message(*near: str) -> str:
        return cli_terminal.usage_message(click.NoSuchOption("--x", possibilities=near))

    assert message() == "No such option '--x'."
    assert message("--a") == "No such option '--x'. Did you mean '--a'?"
    three = message("--a", "--b", "--c")
    assert three.startswith("No such option '--x'. Did you mean '--") and three.endswith("'?")
    assert all(three.count(each) == 1 for each in ("'--a'", "'--b'", "'--c'", "', '--", "' or '--"))


# Terminals


def command(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "wash_fl", *map(str, arguments)],
        capture_output=True,
        env=os.environ | {"COLUMNS": "80"} | environment,
        timeout=120,
        check=False,
    )


ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


def test_a_terminal_without_our_letters_gets_them_as_escapes(tmp_path, write_model):
    card = ModelCard(classes=("öben", "猫 [x]"), input_shape=(4,), preprocessing="")
    path = tmp_path / "möbel.onnx"
    write_model(path, card)
    inputs = tmp_path / "ïn.npy"
    np.save(inputs, np.eye(4, dtype=np.float32))
    process = command("predict", path, inputs, **ASCII)
    assert (process.returncode, process.stderr) == (0, b"")
    assert b"\\xefn.npy" in process.stdout and b"\\xf6ben" in process.stdout and b"+---" in process.stdout
    process = command("predict", path, inputs, "--json", **ASCII)
    assert {each["label"] for each in json.loads(process.stdout)["predictions"]} <= {"öben", "猫 [x]"}
    process = command("predict", path, tmp_path / "fehlt-ö.npy", **ASCII)
    assert (
        process.returncode == 1 and b"fehlt-\\xf6.npy" in process.stderr and process.stderr.count(b"\n") == 1
    )


def test_the_help_fits_a_terminal_without_boxes(wash):
    process = command("simulate", "--help", **ASCII)
    assert (process.returncode, process.stderr) == (0, b"") and process.stdout.isascii()


def test_a_run_that_cannot_be_written_is_refused_before_its_task_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("wash_fl.checks.run.check", None)
    result = CliRunner().invoke(app, ["simulate", "--run-dir", str(tmp_path / "file")])
    assert isinstance(result.exception, RunError) and "cannot make the run's folder" in str(result.exception)


def test_a_locale_that_cannot_name_a_file_is_one_line(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(f"run-dir = '{tmp_path}'\nrun-name = 'ümlaut'\n", encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0"}
    process = command("simulate", "--config", config, **plain)
    assert (
        process.returncode == 1
        and process.stderr.startswith(b"error: cannot write")
        and b"UTF-8" in process.stderr
    )
    assert process.stderr.count(b"\n") == 1
    process = command("simulate", "--task", "tä.py", **plain)
    assert (
        process.returncode == 1 and b"LC_ALL=C.UTF-8" in process.stderr and process.stderr.count(b"\n") == 1
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_answer_that_cannot_be_written_is_an_error(tmp_path, write_model, unbuffered):
    write_model(tmp_path / "m.onnx", ModelCard(classes=("a", "b"), input_shape=(4,), preprocessing=""))
    np.save(tmp_path / "in.npy", np.eye(4, dtype=np.float32))
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "wash_fl", "predict", tmp_path / "m.onnx", tmp_path / "in.npy", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            timeout=120,
            check=False,
        )
    assert process.returncode == 1 and process.stderr.count(b"\n") == 1 and b"No space left" in process.stderr


# Ctrl-C


def test_the_status_of_an_interruption_is_the_same_before_anything_is_loaded():
    assert __main__.INTERRUPTED == errors.INTERRUPTED == 130


def test_ctrl_c_while_the_command_line_is_loaded_ends_without_a_traceback(tmp_path):
    # A module that the command line imports says when it is there, and takes long.
    (tmp_path / "typer.py").write_text(
        "import sys, time\nprint('loading', flush=True)\ntry:\n    time.sleep(60)\n"
        "except KeyboardInterrupt as error:\n    raise ImportError('half loaded') from error\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "wash_fl", "--help"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


def test_ctrl_c_between_loading_and_running_ends_without_a_traceback(monkeypatch):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wash_fl.cli.main.main", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as exit_info:
        __main__.main()
    assert exit_info.value.code == 130 and signal.getsignal(signal.SIGINT) is before


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it(monkeypatch):
    handlers: list[object] = []
    monkeypatch.setattr("wash_fl.cli.main.main", lambda: handlers.append(signal.getsignal(signal.SIGINT)))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        __main__.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.SIG_IGN]


# One run at a time


SIMULATE = ("--rounds", 2, "--local-steps", 2, "--members", 2, "--train-examples", 200, "--test-examples", 50)


def config_of(tmp_path: Path, **options: object) -> RunConfig:
    return RunConfig.from_mapping({"run-dir": str(tmp_path), "run-name": "twin", **options})


def test_a_second_simulation_of_a_name_starts_nothing(tmp_path, wash, monkeypatch, refused):
    monkeypatch.setattr("wash_fl.checks.run.check", lambda config, **more: [])
    monkeypatch.setattr(simulation, "_flower", lambda *_: pytest.fail("Flower is started"))
    config = with_absolute_paths(config_of(tmp_path))
    with RunFolder.claimed(config) as folder:
        before = sorted(path.name for path in folder.path.iterdir())
        result = wash("simulate", "--run-dir", tmp_path, "--run-name", "twin")
        assert result.status == 1 and "'twin'" in result.err and len(result.err.splitlines()) == 1
        assert sorted(path.name for path in folder.path.iterdir()) == before


def test_a_flower_that_does_not_start_is_told_with_its_log_which_is_kept(tmp_path, monkeypatch, refused):
    def fail(home: Path, *_: object) -> "contextlib.AbstractContextManager[None]":
        (home / "flower.log").write_text("Error: no port is free\n")
        raise errors.RunError("Flower's SuperLink did not start.")

    monkeypatch.setattr(simulation, "_flower", fail)
    for _ in range(2):  # and the same name may be tried again, with other options too
        with refused(errors.RunError, "did not start"):
            simulation.simulate(config_of(tmp_path), lambda event: None)
    assert [path.name for path in (tmp_path / "twin").iterdir()] == ["flower.log"]
    assert (tmp_path / "twin" / "flower.log").read_text().count("no port") == 2


def test_a_server_that_comes_second_writes_nothing_and_the_first_goes_on(tmp_path, monkeypatch, refused):
    from wash_fl.runs.job import run_job

    monkeypatch.setattr("wash_fl.runs.folder.END_SECONDS", 0.0)
    with RunFolder.at_work(config_of(tmp_path)) as folder:
        folder.log("start")
        with refused(errors.RunError, "another server", "'twin'"):
            run_job(None, config_of(tmp_path))  # type: ignore[arg-type]
        folder.log("finished")
    assert [event["event"] for event in folder.events()] == ["start", "finished"]


@pytest.mark.long
def test_two_simulations_of_one_name_at_once_are_one_run(tmp_path):
    def start() -> "subprocess.Popen[str]":
        arguments = ["simulate", *SIMULATE, "--run-dir", tmp_path, "--run-name", "twin"]
        return subprocess.Popen(
            [sys.executable, "-m", "wash_fl", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    both = [start(), start()]
    outputs = {process.pid: process.communicate(timeout=300) for process in both}
    first, second = sorted(both, key=lambda process: process.returncode)
    assert (first.returncode, second.returncode) == (0, 1), outputs
    out, err = outputs[second.pid]
    assert "at work on the run 'twin'" in err and len(err.splitlines()) == 1 and "round" not in out
    folder = RunFolder.open(tmp_path / "twin")
    kinds = [event["event"] for event in folder.events()]
    assert kinds[0] == "start" and kinds[-1] == "finished" and "failed" not in kinds
    assert folder.summary()["members"] == [0, 1]


# A full disk


def test_a_run_on_a_disk_that_fills_up_ends_with_its_own_reason(tmp_path, make_task, monkeypatch):
    from wash_fl.runs import job

    def fail(*_: object) -> None:
        raise errors.StateError("the journal cannot be written.")

    def log(self: RunFolder, event: str, **fields: object) -> None:
        if event == "failed":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(job, "_train", fail)
    monkeypatch.setattr(RunFolder, "log", log)
    folder = RunFolder.create(config_of(tmp_path))
    with pytest.raises(errors.StateError, match="the journal"):
        job._run(None, folder, make_task(), config_of(tmp_path))  # type: ignore[arg-type]
