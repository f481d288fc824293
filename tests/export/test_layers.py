"""Layers have the names of their modules, and each keeps its own weights."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from wash_fl.export import ModelCard, Predictor, export_onnx
from wash_fl.export.quantization import SCHEMES, Quantizer, this_target


class Twice(nn.Module):
    """Calls one convolution twice; a BatchNorm is behind the first call, or one behind each."""

    def __init__(self, norms: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(norms))
        self.head = nn.Linear(4, 3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, each in self.state_dict().items():
                if each.is_floating_point():
                    values = torch.randn(each.shape, generator=generator)
                    each.copy_(values.abs() + 0.2 if name.startswith("norms") else values)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, 4, height, width) to three logits."""
        values = torch.relu(self.norms[0](self.conv(inputs)))
        values = self.conv(values)
        if len(self.norms) > 1:
            values = self.norms[1](values)
        outputs: torch.Tensor = self.head(torch.relu(values).mean((2, 3)))
        return outputs


def quantizer_of(model: nn.Module, path: Path, inputs: torch.Tensor, target: str = "x86") -> Quantizer:
    card = ModelCard(classes=("a", "b", "c"), input_shape=tuple(inputs.shape[1:]))
    export_onnx(model.eval(), path, card=card, examples=inputs[:8], tolerance=1e-3)
    return Quantizer(path, inputs.numpy(), target)


def logits(path: Path, inputs: np.ndarray, target: str) -> np.ndarray:
    if target == this_target():
        return Predictor(path).predict(inputs).logits
    # An x86 processor without VNNI saturates the sums of int8 with int8. Unoptimised, nothing is an integer.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs: np.ndarray = session.run(["logits"], {session.get_inputs()[0].name: inputs})[0]
    return outputs


@pytest.mark.parametrize("norms", [1, 2])
@pytest.mark.parametrize("target", SCHEMES)
def test_a_module_that_is_called_twice_keeps_its_weights_apart(
    tmp_path: Path, norms: int, target: str
) -> None:
    inputs = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    quantizer = quantizer_of(Twice(norms), tmp_path / "model.onnx", inputs, target)
    assert [name for name in quantizer.layers if "/Relu" not in name] == ["conv", "conv/2", "head"]
    quantizer.write(tmp_path / "q.onnx")
    before, after = (logits(tmp_path / name, inputs.numpy(), target) for name in ("model.onnx", "q.onnx"))
    assert np.abs(before - after).max() < 0.1 * before.std()


def test_a_linear_layer_of_many_positions_has_its_modules_name(tmp_path: Path) -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            """Map (batch, 6, 5) to three logits."""
            outputs: torch.Tensor = self.encoder(inputs).mean(1)
            return outputs

    inputs = torch.randn(8, 6, 5, generator=torch.Generator().manual_seed(1))
    layers = quantizer_of(Positions(), tmp_path / "model.onnx", inputs).layers
    assert layers == ("encoder.0", "encoder.0/Add", "encoder.0/Relu", "encoder.2", "encoder.2/Add")


def test_channels_whose_weights_are_all_zero_stay_zero(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))
    with torch.no_grad():
        model[0].weight[:5] = 0
        model[0].bias[:5] = 0
        model[3].weight[1] = 0
        model[3].bias[1] = 0
    inputs = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for target in SCHEMES:
        quantizer_of(model, tmp_path / "model.onnx", inputs, target).write(tmp_path / "q.onnx")
        before, after = (
            Predictor(tmp_path / name).predict(inputs.numpy()).logits for name in ("model.onnx", "q.onnx")
        )
        assert (after[:, 1] == 0).all() and np.abs(before - after).max() < 0.1 * np.abs(before).max()
