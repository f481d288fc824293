"""The export of the initial model: what it would refuse after the training, it refuses before."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from wash_fl.checks.finding import Finding
from wash_fl.checks.subject import Subject
from wash_fl.errors import ExportError

PACKAGES: Final = ("onnx", "onnxruntime", "onnxscript")


def export(subject: Subject) -> Iterator[Finding]:
    """Refuse a model that cannot be exported, or whose file answers otherwise; in int8 too if it is to be."""
    absent = [each for each in PACKAGES if find_spec(each) is None]
    if absent and not subject.exports:
        yield Finding(
            "export",
            "warning",
            f"not tried: {', '.join(absent)} is missing",
            "try it where the averaged model is exported",
        )
        return
    from wash_fl.export.onnx import export_onnx

    with tempfile.TemporaryDirectory(prefix="wash-") as folder:
        path = Path(folder) / "model.onnx"
        with _before_training("exported", folder):
            parity = export_onnx(
                subject.model,
                path,
                card=subject.card,
                examples=subject.inputs,
                tolerance=subject.config.finish.tolerance,
            )
        yield Finding(
            "export",
            "ok",
            f"{path.stat().st_size / 1000:,.1f} kB of ONNX, largest difference to PyTorch "
            f"{parity.largest_difference:.2g} on {parity.examples} examples",
        )
        if subject.int8:
            from wash_fl.export.int8 import try_int8

            with _before_training("quantized", folder):
                try_int8(path, subject.inputs.numpy())
            yield Finding("int8", "ok", "quantized, and the file answers")


@contextmanager
def _before_training(verb: str, folder: str) -> Iterator[None]:
    """Say of an error that it would have come when the model is trained."""
    try:
        yield
    except ExportError as error:
        # A file that was refused is gone with its folder: its reason is what counts.
        reason = error.__cause__ if isinstance(error.__cause__, ExportError) else error
        text = str(reason).replace(f"{folder}/", "")
        raise ExportError(f"the model could not be {verb} when it is trained: {text}") from error
