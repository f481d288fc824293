"""How fast a model is in int8 beside the same in float32: both exported here, and answering in turn."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from wash_fl.core import philox
from wash_fl.export import ModelCard, export_onnx
from wash_fl.export.calibration import BATCH
from wash_fl.export.inference import Predictor
from wash_fl.export.int8 import give_proof
from wash_fl.export.quantization import SCHEMES, Quantizer, choose_target
from wash_fl.lab.bench import inference
from wash_fl.tasks.models import initial_model
from wash_fl.tasks.task import load_task


def run(
    model: str = "resnet18",
    *,
    side: int = 224,
    target: str | None = None,
    batches: Sequence[int] = (1,),
    repeats: int = 100,
) -> dict[str, Any]:
    """Export a model, untrained, quantize it, and measure both files.

    Its time does not depend on its weights. What int8 does to the answers does: that is told by
    ``wash-fl export --int8``.

    Parameters
    ----------
    model : str
        One of the built-in models.
    side : int
        Of its inputs, square RGB images of random numbers.
    target : str, optional
        A key of :data:`wash_fl.export.quantization.SCHEMES`; by default what this machine is.
    batches, repeats
        As :func:`wash_fl.lab.bench.inference.run` takes them.

    Returns
    -------
    dict
        What :func:`wash_fl.lab.bench.inference.run` returns, of ``float32`` and ``int8``; and the ``name`` of
        the model, its ``side``, the ``target`` with its scheme, and the ``size_ratio`` of the files.

    Raises
    ------
    ConfigError
        If there is no such model, or a number is not possible.
    ExportError
        If there is no such target, or the model cannot be exported.
    """
    int8_target = choose_target(target)
    task = replace(load_task("cifar10"), input_shape=(3, side, side))
    network = initial_model(model, task, seed=0).eval()
    generator = torch.Generator().manual_seed(philox.seed_of(0, "int8"))
    inputs = torch.randn(BATCH, *task.input_shape, generator=generator)
    card = ModelCard(classes=task.classes, input_shape=task.input_shape)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in ("float32", "int8")}
        export_onnx(network, paths["float32"], card=card, examples=inputs[:2])
        Quantizer(paths["float32"], inputs.numpy(), int8_target).write(paths["int8"])
        give_proof(paths["int8"], Predictor(paths["float32"]), tolerance=1.0)
        figures = inference.run(list(paths.values()), batches=batches, repeats=repeats)
    for each, name in zip(figures["models"], paths, strict=True):
        each["model"] = name
    scheme = SCHEMES[int8_target]
    before, after = (each["file_bytes"] for each in figures["models"])
    return {
        "name": model,
        "side": side,
        "target": int8_target,
        "activations": scheme.activations,
        "weight_bits": scheme.weight_bits,
        "size_ratio": after / before,
        **figures,
    }
