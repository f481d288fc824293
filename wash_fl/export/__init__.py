"""The averaged model as one ONNX file, shown to answer as PyTorch does, and read without torch."""

from typing import TYPE_CHECKING, Any

from wash_fl.export.answers import Answer, FileAnswers, answer_files
from wash_fl.export.inference import Predictions, Predictor, evaluate_onnx, load_inputs
from wash_fl.export.metadata import ModelCard
from wash_fl.export.normalization import Normalization
from wash_fl.export.parity import Parity, compare
from wash_fl.export.replay import Replay, replay

if TYPE_CHECKING:
    from wash_fl.export.onnx import export_onnx

__all__ = [
    "Answer",
    "FileAnswers",
    "ModelCard",
    "Normalization",
    "Parity",
    "Predictions",
    "Predictor",
    "Replay",
    "answer_files",
    "compare",
    "evaluate_onnx",
    "export_onnx",
    "load_inputs",
    "replay",
]


def __getattr__(name: str) -> Any:
    # A device that only predicts has no torch, so nothing may import it before it is asked for.
    if name == "export_onnx":
        from wash_fl.export.onnx import export_onnx

        return export_onnx
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
