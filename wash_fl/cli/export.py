"""``wash-fl export``: a run's averaged model as ONNX files, in float32 and in int8."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from wash_fl.cli.terminal import Json, Run, out, say
from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError

if TYPE_CHECKING:
    from wash_fl.export.int8 import Int8


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(export)


def export(  # noqa: PLR0917 (the command line gives them by name)
    run: Run,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the file goes; by default into the run's folder."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest accepted difference to PyTorch; by default the run's.")
    ] = None,
    test_vectors: Annotated[
        int | None,
        typer.Option(
            help="Test inputs that the file carries with their answers, 0 to 8; by default the run's.",
            min=0,
            max=8,
            show_default=False,
        ),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Export the mean of the members' logits, of a run --save-members."),
    ] = False,
    raw_inputs: Annotated[
        bool,
        typer.Option("--raw-inputs", help="Write a second file beside it that prepares raw inputs itself."),
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write a second file beside it in int8, and compare the two.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(help="Of int8: arm64 or x86; by default what this machine is.", show_default=False),
    ] = None,
    int8_tolerance: Annotated[
        float | None,
        typer.Option(
            help="Points of accuracy that int8 may cost (default: 0.5).", min=0, max=100, show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a run's averaged model to ONNX again, checked against PyTorch.

    RUN is a run's folder, such as runs/digits-2026-01-31-120000. With --raw-inputs a second file is written
    beside the first, MODEL.raw.onnx, which is given a picture's bytes or a sensor's readings as they are.
    With --int8 it is MODEL.int8.onnx, calibrated on training data and judged on the test data, in all and in
    each class; if it costs too much, the layers that hurt most stay in float32.
    """
    if not int8 and (target is not None or int8_tolerance is not None):
        raise ConfigError("--target and --int8-tolerance are for a file in int8: give --int8 as well.")
    from wash_fl.consensus.finish import Evaluator
    from wash_fl.runs.exporting import export_averaged, export_ensemble, export_int8_beside, export_raw_beside
    from wash_fl.runs.folder import ENSEMBLE, MODEL, RunFolder
    from wash_fl.tasks.task import load_task

    folder = RunFolder.open(run)
    if int8:
        from wash_fl.export.judgement import TOLERANCE
        from wash_fl.export.quantization import choose_target

        int8_target = choose_target(target)
        points = TOLERANCE if int8_tolerance is None else int8_tolerance
    options = {"tolerance": tolerance, "test-vectors": test_vectors}
    changes = {name: value for name, value in options.items() if value is not None}
    config = RunConfig.from_mapping(folder.config.to_mapping() | changes)
    path = folder.path / (ENSEMBLE if ensemble else MODEL) if output is None else output
    evaluator = Evaluator(load_task(config.task.task), config)
    if ensemble:
        parity = export_ensemble(folder, evaluator, path)
    else:
        parity = export_averaged(folder, evaluator, folder.weights(), path)
    figures: dict[str, Any] = {
        "model": str(path),
        "largest_difference": parity.largest_difference,
        "examples": parity.examples,
        "agreement": parity.agreement,
    }
    if not as_json:
        say(
            out,
            f"{path}: largest difference to PyTorch {parity.largest_difference:.2g} on {parity.examples} "
            f"examples, {parity.agreement:.2%} equal answers",
        )
    if raw_inputs:
        raw, apart = export_raw_beside(path, evaluator)
        figures["raw"] = {"model": str(raw), "largest_difference": apart.largest_difference}
        if not as_json:
            difference = f"{apart.largest_difference:.2g}"
            say(out, f"{raw}: largest difference to {path.name} {difference}, on raw inputs")
    if int8:
        result = export_int8_beside(path, evaluator, target=int8_target, tolerance=points)
        figures["int8"] = _figures(result)
        if not as_json:
            _show(path, result)
    if as_json:
        print(json.dumps(figures))


def _figures(result: "Int8") -> dict[str, Any]:
    judgement = result.judgement
    scores = dataclasses.asdict(judgement)
    return {
        "model": str(result.model),
        **{name: value for name, value in vars(result).items() if name not in {"model", "judgement"}},
        **scores,
        "agreement": judgement.agreement,
        "worst_class": {
            **dataclasses.asdict(judgement.worst),
            "float32_recall": judgement.worst.float32_recall,
            "int8_recall": judgement.worst.int8_recall,
        },
    }


def _show(model: Path, result: "Int8") -> None:
    judgement, worst = result.judgement, result.judgement.worst
    title = f"int8 for {result.target}: {judgement.examples} test examples; times of this machine, one thread"
    table = Table("", title=title, title_justify="left")
    for heading in (model.name, result.model.name, "ratio"):
        table.add_column(escape(heading), justify="right")
    sizes = result.float32_bytes, result.int8_bytes
    table.add_row("kB", *(f"{size / 1000:,.1f}" for size in sizes), f"{sizes[1] / sizes[0]:.3f}")
    table.add_row("accuracy", f"{judgement.float32_accuracy:.2%}", f"{judgement.int8_accuracy:.2%}")
    recalls = (f"{recall:.2%}" for recall in (worst.float32_recall, worst.int8_recall))
    table.add_row(f"recall, worst class: {escape(worst.name)} ({worst.examples} examples)", *recalls)
    table.add_row("equal answers", "", f"{judgement.agreement:.2%}")
    for size, row in result.latency.items():
        name = f"ms at batch {size}"
        table.add_row(name, f"{row['float32_ms']:.3g}", f"{row['int8_ms']:.3g}", f"{row['ratio']:.3f}")
    out.print(table)
    if worst.loses > 0:
        loss = f"{worst.loses} of its {worst.examples} examples, and may lose {worst.may_lose}"
        say(out, f"the class that loses most is {worst.name}: {loss}")
    if judgement.unseen:
        say(out, f"not judged, for the test data have no example of them: {', '.join(judgement.unseen)}")
    if result.in_float:
        tries = "1 try" if result.tries == 1 else f"{result.tries} tries"
        say(out, f"after {tries} these stay in float32: {', '.join(result.in_float)}")
    say(out, str(result.model))
