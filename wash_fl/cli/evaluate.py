"""``wash-fl evaluate``: how good a run's averaged model is, as weights and as the file that is shipped."""

import json

import typer
from rich.markup import escape
from rich.table import Table

from wash_fl.cli.terminal import Json, Run, out


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(evaluate)


def evaluate(run: Run, as_json: Json = False) -> None:
    """Evaluate a run's averaged model on its task's test data: the weights, and the ONNX file.

    RUN is a run's folder, such as runs/digits-2026-01-31-120000.
    """
    from wash_fl.consensus.evaluate import accuracy, logits_of
    from wash_fl.consensus.finish import Evaluator
    from wash_fl.export.inference import evaluate_onnx
    from wash_fl.runs.folder import MODEL, RunFolder
    from wash_fl.tasks.task import load_task

    folder = RunFolder.open(run)
    evaluator = Evaluator(load_task(folder.config.task.task), folder.config)
    model = evaluator.model(folder.weights())
    targets = evaluator.targets
    figures = {
        "examples": len(targets),
        "averaged": accuracy(logits_of(model, evaluator.inputs), targets),
        "onnx": evaluate_onnx(folder.path / MODEL, evaluator.inputs.numpy(), targets),
    }
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("model", "test accuracy", title=f"{escape(folder.path.name)}: {len(targets)} test examples")
    table.add_row("averaged (PyTorch)", f"{figures['averaged']:.2%}")
    table.add_row("averaged (ONNX)", f"{figures['onnx']:.2%}")
    out.print(table)
