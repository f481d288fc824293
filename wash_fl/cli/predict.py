"""``wash-fl predict``: answers to files, on a device without torch."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from wash_fl.cli.terminal import Json, err, out, say, say_error


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(predict)


def predict(  # noqa: PLR0917 (the command line gives them by name)
    model: Annotated[Path, typer.Argument(help="An ONNX file that wash-fl exported.")],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="Images, arrays, CSV files, or folders of them.", show_default=False),
    ] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Cut and scale images of another size.")] = False,
    stride: Annotated[
        int | None,
        typer.Option(help="Rows of a CSV file from window to window; by default a window's length.", min=1),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="First let the model answer its own test vectors; INPUTS may be missing."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer inputs with an exported model: the likeliest class of each, and its probability.

    INPUTS are images (.png, .jpg, .webp, .bmp), arrays that are prepared already (.npy, .npz), tables of a
    sensor's readings (.csv), or folders of such files. A file that cannot be read does not keep the others
    from their answers; the status is then 1. Needs onnxruntime, numpy and Pillow, and no torch.

    With --check the model first answers the few inputs that its file carries. If an answer is not what it was
    where the file was exported, that is said, the status is 1, and INPUTS are not answered.
    """
    from wash_fl.export.answers import answer_files
    from wash_fl.export.inference import Predictor
    from wash_fl.export.inputs import find_files
    from wash_fl.export.replay import replay

    predictor = Predictor(model)
    replayed = replay(predictor) if check else None
    off = replayed is not None and bool(replayed.problem)
    # Without --check there must be inputs: find_files says so.
    files, passed_over = ([], []) if check and not inputs else find_files(inputs or ())
    results = [] if off else list(answer_files(predictor, files, resize=resize, stride=stride))
    refusals = [each for each in results if each.refused]
    if as_json:
        content: dict[str, Any] = {
            "model": str(model),
            "predictions": [
                {
                    "file": str(each.file),
                    **answer.place,
                    "label": answer.label,
                    "probability": answer.probability,
                }
                for each in results
                for answer in each.answers
            ],
            "refused": [{"file": str(each.file), "why": each.refused} for each in refusals],
            "left_over": {str(each.file): each.left_over for each in results if each.left_over},
            "passed_over": [str(path) for path in passed_over],
            "warnings": [
                {"file": str(each.file), "what": doubt} for each in results for doubt in each.warnings
            ],
        }
        if replayed is not None:
            content["check"] = asdict(replayed)
        print(json.dumps(content))
    else:
        if replayed is not None and not off:
            say(out, f"{model}: {replayed.summary}")
        if len(refusals) < len(results):
            _show(results)
    if passed_over:
        say(err, f"passed over, of another kind: {', '.join(map(str, passed_over))}")
    for each in results:
        if each.left_over:
            say(err, f"{each.file}: the last {each.left_over} rows are in no window")
        for doubt in each.warnings:
            say(err, f"warning: {each.file}: {doubt}")
    for each in refusals:
        say_error(each.refused)
    if replayed is not None and off:
        say_error(replayed.message)
    if refusals or off:
        raise typer.Exit(1)


def _show(results: Any) -> None:
    table = Table()
    table.add_column("file", overflow="fold")
    places = any(answer.place for each in results for answer in each.answers)
    if places:
        table.add_column("of it")
    table.add_column("label")
    table.add_column("probability", justify="right")
    for each in results:
        for answer in each.answers:
            of_it = [escape(_place(answer.place))] if places else []
            table.add_row(escape(str(each.file)), *of_it, escape(answer.label), f"{answer.probability:.1%}")
    out.print(table)


def _place(place: dict[str, Any]) -> str:
    parts = [place["array"]] if "array" in place else []
    if "index" in place:
        parts.append(f"[{place['index']}]")
    if "rows" in place:
        first, last = place["rows"]
        parts.append(f"row {first}" if first == last else f"rows {first}-{last}")
    return " ".join(parts)
