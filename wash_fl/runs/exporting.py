"""The models of a run as ONNX files: averaged, or all members; in float32, in int8, and for raw inputs."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import wash_fl
from wash_fl.consensus.evaluate import MeanOfLogits
from wash_fl.consensus.finish import Arrays, Evaluator
from wash_fl.core.identity import weights_sha256
from wash_fl.export.metadata import ModelCard
from wash_fl.export.normalization import Normalization
from wash_fl.export.onnx import export_onnx
from wash_fl.export.parity import PARITY_EXAMPLES, Parity
from wash_fl.export.raw import export_raw
from wash_fl.member.parameters import model_sha256
from wash_fl.runs.folder import RunFolder
from wash_fl.tasks.task import Task

if TYPE_CHECKING:
    from wash_fl.export.int8 import Int8


def export_averaged(folder: RunFolder, evaluator: Evaluator, weights: Arrays, path: Path) -> Parity:
    """Export a run's averaged model to ONNX, checked on the task's test inputs.

    Raises
    ------
    ExportError
        If the file answers otherwise than the model.
    """
    return export_onnx(
        evaluator.model(weights),
        path,
        card=_card(folder, evaluator, weights_sha256=weights_sha256(weights)),
        examples=evaluator.inputs[:PARITY_EXAMPLES],
        tolerance=evaluator.config.finish.tolerance,
        test_vectors=evaluator.config.finish.test_vectors,
    )


def export_ensemble(folder: RunFolder, evaluator: Evaluator, path: Path) -> Parity:
    """Export the members of a run as one ONNX file that answers with the mean of their logits.

    Raises
    ------
    ExportError
        If the file answers otherwise than the members.
    RunError
        If the run has not kept its members' models.
    """
    members = folder.members()
    model = MeanOfLogits([evaluator.model(weights) for weights in members.values()]).eval()
    identity = {"ensemble": ", ".join(map(str, members)), "weights_sha256": model_sha256(model)}
    return export_onnx(
        model,
        path,
        card=_card(folder, evaluator, **identity),
        examples=evaluator.inputs[:PARITY_EXAMPLES],
        tolerance=evaluator.config.finish.tolerance,
        test_vectors=evaluator.config.finish.test_vectors,
    )


def export_raw_beside(model: Path, evaluator: Evaluator) -> tuple[Path, Parity]:
    """Write what was exported once more beside it, as a file that takes raw inputs.

    Raises
    ------
    ExportError
        If the task has no NORMALIZATION, or the file answers otherwise than the one it is made of.
    """
    path = model.with_suffix(".raw.onnx")
    examples = evaluator.inputs[:PARITY_EXAMPLES].numpy()
    finish = evaluator.config.finish
    return path, export_raw(
        model, path, examples=examples, tolerance=finish.tolerance, test_vectors=finish.test_vectors
    )


def export_int8_beside(model: Path, evaluator: Evaluator, *, target: str, tolerance: float) -> "Int8":
    """Write what was exported once more beside it, in int8, judged on the task's test data.

    Parameters
    ----------
    model : Path
        A file in float32.
    evaluator : Evaluator
        Of its run.
    target, tolerance
        As :func:`wash_fl.export.int8.export_int8` takes them.

    Raises
    ------
    ExportError
        If the accuracy cannot be kept.
    """
    # Not before it is asked for: it takes onnxruntime's tools, which a server does not need.
    from wash_fl.export.int8 import export_int8

    batches = evaluator.server_calibration()
    return export_int8(
        model,
        model.with_suffix(".int8.onnx"),
        target=target,
        calibration=np.concatenate([each.numpy() for each in batches]),
        inputs=evaluator.inputs.numpy(),
        targets=evaluator.targets,
        tolerance=tolerance,
    )


def card_of(task: Task, **run: str) -> ModelCard:
    """Return the card of a task's model; ``run`` is the identity of the run that it comes from."""
    raw = task.normalization
    return ModelCard(
        classes=task.classes,
        input_shape=task.input_shape,
        preprocessing=task.preprocessing,
        normalization=None if raw is None else Normalization(mean=raw[0], std=raw[1]),
        columns=task.columns,
        run=run,
    )


def _card(folder: RunFolder, evaluator: Evaluator, **identity: str) -> ModelCard:
    """Return the card of a run's model; its identity says what model of the run it is."""
    training = evaluator.config.training
    return card_of(
        evaluator.task,
        name=folder.path.name,
        seed=str(training.seed),
        members=str(training.members),
        **identity,
        wash_fl=wash_fl.__version__,
    )
