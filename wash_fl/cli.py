"""The command line: thin, every option from :mod:`wash_fl.config`."""

import dataclasses
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.markup import escape
from rich.table import Table

import wash_fl
from wash_fl import cli_bench, cli_compare, cli_doctor, cli_export, cli_fleet, cli_predict
from wash_fl.cli_terminal import Json, Run, err, out, say_error
from wash_fl.config import GROUPS, RunConfig, fields
from wash_fl.errors import INTERRUPTED, WashError

app = typer.Typer(
    name="wash-fl",
    help="Train an ensemble on a fleet of edge devices, ship it as one small model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXTRAS = {
    "torch": "client",
    "flwr": "client",
    "cryptography": "client",
    "grpc": "client",
    "onnx": "server",
    "onnxscript": "server",
    "matplotlib": "server",
    "onnxruntime": "infer",
    "PIL": "infer",
    "ray": "simulation",
    "psutil": "server",
    "torchvision": "simulation",
    "flwr_datasets": "simulation",
    "tensorboard": "tensorboard",
}
"""Which extra brings a package that a command may miss."""


def main() -> None:
    """Run the command line; an error of ours is one line and a status other than 0."""
    try:
        sys.exit(app(standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" See {context.command_path} --help." if context else ""
        message = error.format_message()
        say_error(message + ("" if message.endswith((".", "?")) else ".") + hint)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except WashError as error:
        say_error(str(error))
        sys.exit(1)
    except OSError as error:
        say_error(f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}.")
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        say_error(
            f"this command needs the package {error.name}, which is not installed: "
            f"pip install 'wash-fl[{extra}]'."
        )
        sys.exit(1)


def _with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of :class:`RunConfig`; those that are not given stay None."""
    own = list(inspect.signature(command).parameters.values())
    given = [parameter for parameter in own if parameter.name != "options"]
    panels = {spec.name: group for group, kind in GROUPS.items() for spec in dataclasses.fields(kind)}
    added = []
    for key, spec in fields().items():
        kind = type(spec.default)
        flag = f"--{key}/--no-{key}" if kind is bool else f"--{key}"
        choices = f": {', '.join(spec.metadata['choices'])}" if spec.metadata["choices"] else ""
        option = typer.Option(
            flag,
            help=f"{spec.metadata['help']}{choices} (default: {json.dumps(spec.default)})",
            rich_help_panel=panels[spec.name].capitalize(),
            show_default=False,
        )
        annotation: Any = Annotated[kind | None, option]
        added.append(
            inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )

    def run(**values: Any) -> None:
        options = {spec.name: values.pop(spec.name) for spec in fields().values()}
        command(**values, options={name: value for name, value in options.items() if value is not None})

    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in given]
    run.__signature__ = inspect.Signature(keyword + added)  # type: ignore[attr-defined]
    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    return run


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        out.print(wash_fl.__version__)
        raise typer.Exit


@app.command()
@_with_run_options
def simulate(
    options: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option("--config", help="A TOML file of options; those given here win.")
    ] = None,
) -> None:
    """Run the whole job on one machine: train, exchange, average, export to ONNX.

    Starts Flower's simulation engine with one client per member, and stops it again.
    """
    settings = RunConfig.from_mapping(options) if config is None else RunConfig.from_toml(config, options)
    from wash_fl.preflight import check
    from wash_fl.report.progress import Progress
    from wash_fl.simulation import simulate as run_simulation

    check(settings)
    try:
        with Progress(out, settings.training.rounds) as progress:
            folder = run_simulation(settings, progress.show)
    except KeyboardInterrupt:
        err.print("interrupted: everything that was started is stopped.", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    progress.summarize(folder)


@app.command()
def evaluate(run: Run, as_json: Json = False) -> None:
    """Evaluate a run's averaged model on its task's test data: the weights, and the ONNX file.

    RUN is a run's folder, such as runs/digits-2026-01-31-120000.
    """
    from wash_fl.consensus.evaluate import accuracy, logits_of
    from wash_fl.consensus.finish import Examination
    from wash_fl.export.inference import evaluate_onnx
    from wash_fl.report.run_folder import MODEL, RunFolder
    from wash_fl.tasks.task import load_task

    folder = RunFolder.open(run)
    examination = Examination(load_task(folder.config.task.task), folder.config)
    model = examination.model(folder.weights())
    targets = examination.targets
    found = {
        "examples": len(targets),
        "averaged": accuracy(logits_of(model, examination.inputs), targets),
        "onnx": evaluate_onnx(folder.path / MODEL, examination.inputs.numpy(), targets),
    }
    if as_json:
        print(json.dumps(found))
        return
    table = Table("model", "test accuracy", title=f"{escape(folder.path.name)}: {len(targets)} test examples")
    table.add_row("averaged (PyTorch)", f"{found['averaged']:.2%}")
    table.add_row("averaged (ONNX)", f"{found['onnx']:.2%}")
    out.print(table)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a comparison's.")],
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the page goes; by default report.html in the folder."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Write the figures as PNG files too, into this folder.")
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(help="Write the run's curves for TensorBoard too, into a folder of its name in here."),
    ] = None,
) -> None:
    """Tell of a run or a comparison on one page: HTML that needs no network and reads well on a phone.

    FOLDER is a run's, such as runs/digits-2026-01-31-120000, or what compare has made; neither need be
    finished.
    """
    from wash_fl.report.writing import write_events, write_figures, write_page

    more = [] if figures is None else write_figures(folder, figures)
    more += [] if tensorboard is None else [write_events(folder, tensorboard)]
    for path in (write_page(folder, output), *more):
        out.print(str(path), markup=False, highlight=False, soft_wrap=True)


@app.command()
def audit(
    run: Run,
    states: Annotated[
        list[Path] | None,
        typer.Argument(help="State folders of the devices, or copies; by default those of a simulation."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check on a stopped fleet that every value is held once: journal and members' states side by side.

    RUN is a run's folder on the server, such as runs/digits-2026-01-31-120000; STATES are the folders in
    which the devices keep their members.
    """
    from wash_fl.audit import as_json as to_json
    from wash_fl.audit import audit as look
    from wash_fl.report.run_folder import MEMBERS, RunFolder

    found = look(RunFolder.open(run), states or [run / MEMBERS])
    if as_json:
        print(json.dumps(to_json(found)))
    else:
        table = Table("member", "state", title=f"{escape(found.run)}: {found.settled} exchanges settled")
        for member, text in sorted(found.members.items()):
            table.add_row(str(member), escape(text))
        out.print(table)
        for line in [
            f"{found.waiting} deliveries wait in the journal; "
            f"{found.values} values of the last exchange were compared",
            *(f"not checked: {each}" for each in found.unchecked),
            *(f"PROBLEM: {each}" for each in found.problems),
            "" if found.problems else "no value is lost or held twice, as far as was checked",
        ]:
            if line:
                out.print(line, markup=False, highlight=False, soft_wrap=True)
    if found.problems:
        raise typer.Exit(1)


cli_export.register(app)
cli_predict.register(app)
cli_fleet.register(app, _with_run_options)
cli_doctor.register(app, _with_run_options)
cli_compare.register(app, _with_run_options)
cli_bench.register(app)
