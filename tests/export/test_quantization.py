"""The int8 file answers nearly as its float32 file does, or it is not there."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from wash_fl.errors import ExportError
from wash_fl.export import ModelCard, Normalization, Predictor, export_onnx
from wash_fl.export.int8 import Int8, export_int8
from wash_fl.export.metadata import Quantization
from wash_fl.export.quantization import SCHEMES, Quantizer, choose_target
from wash_fl.tasks.division import tensors_of
from wash_fl.tasks.models import initial_model
from wash_fl.tasks.task import load_task

torch.set_num_threads(1)

CALIBRATION = 128


class TrainedNetwork:
    """A float32 file of a network that knows the digits, and the digits."""

    def __init__(self, folder: Path) -> None:
        task = load_task("digits")
        inputs, targets = tensors_of(task.train_data())
        tests, self.targets = (each.numpy() for each in tensors_of(task.test_data()))
        network = initial_model("resnet20", task, seed=0)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        generator = torch.Generator().manual_seed(0)
        for step in range(80):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 80)
            rows = torch.randint(len(inputs), (32,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
            optimizer.step()
        self.card = ModelCard(
            classes=task.classes,
            input_shape=task.input_shape,
            preprocessing=task.preprocessing,
            run={"name": "digits", "seed": "0"},
            normalization=Normalization(mean=(0.0,), std=(1.0,)),
        )
        self.path = folder / "model.onnx"
        export_onnx(network.eval(), self.path, card=self.card, examples=inputs[:8])
        self.inputs, self.calibration = tests, inputs[:CALIBRATION].numpy()

    def int8(self, path: Path, **options: object) -> Int8:
        defaults = {
            "target": "x86",
            "calibration": self.calibration,
            "inputs": self.inputs,
            "targets": self.targets,
        }
        return export_int8(self.path, path, **(defaults | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetwork:
    return TrainedNetwork(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def quantizer(trained: TrainedNetwork) -> Callable[[str], Quantizer]:
    return lambda target: Quantizer(trained.path, trained.calibration, target)


class Uneven(nn.Module):
    """Between its layers ``wide`` and ``narrow`` one channel is 10,000 times as large as the others.

    What counts is in the others: in 8 bits, with one scale for all, nothing is left of them.
    """

    def __init__(self, around: bool) -> None:
        super().__init__()
        many = torch.zeros(2000, 3)
        many[:3] = torch.eye(3)
        self.first = nn.Sequential(_linear(many), _linear(many.T)) if around else nn.Identity()
        self.wide = _linear(torch.cat([torch.eye(3), 10_000 * torch.ones(1, 3)]))
        self.narrow = _linear(torch.cat([torch.eye(3), torch.zeros(3, 1)], dim=1))
        self.last = _linear(2 * torch.eye(3)) if around else nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, 3) to logits of the same shape: twice the inputs, or just them."""
        outputs: torch.Tensor = self.last(self.narrow(self.wide(self.first(inputs))))
        return outputs


def _linear(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    return layer


def uneven(folder: Path, around: bool) -> tuple[Path, dict[str, np.ndarray]]:
    """Return a float32 file, and what else an int8 file is made from."""
    generator = torch.Generator().manual_seed(4)
    targets = torch.randint(3, (200,), generator=generator)
    inputs = 0.5 * torch.rand(200, 3, generator=generator) + 0.75 * torch.eye(3)[targets]
    path = folder / "model.onnx"
    card = ModelCard(classes=("a", "b", "c"), input_shape=(3,))
    export_onnx(Uneven(around).eval(), path, card=card, examples=inputs[:8], tolerance=1e-2)
    return path, {"calibration": inputs.numpy(), "inputs": inputs.numpy(), "targets": targets.numpy()}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def weights_of(path: Path) -> dict[str, np.ndarray]:
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    return {
        name: array
        for name, array in arrays.items()
        if name.endswith(".weight_quantized") and array.dtype == np.int8
    }


def test_a_trained_network_is_a_third_of_the_size_and_answers_nearly_the_same(
    trained: TrainedNetwork, tmp_path: Path
) -> None:
    result = trained.int8(tmp_path / "model.int8.onnx")
    assert result.int8_bytes == (tmp_path / "model.int8.onnx").stat().st_size <= result.float32_bytes / 3
    assert result.judgement.float32_accuracy > 0.9, (
        "the network has learned nothing: this test would show nothing"
    )
    assert result.judgement.points_lost <= 0.5 and result.judgement.agreement >= 0.98
    right = Predictor(result.model).predict(trained.inputs).logits.argmax(axis=1) == trained.targets
    assert result.judgement.int8_accuracy == right.mean()
    assert result.judgement.examples == len(trained.inputs)
    assert len(weights_of(result.model)) == 20, "all layers"


def test_the_card_is_kept_and_says_that_it_is_int8(trained: TrainedNetwork, tmp_path: Path) -> None:
    Quantizer(trained.path, trained.calibration, "x86").write(tmp_path / "q.onnx", in_float=["fc", "conv1"])
    quantization = Quantization(target="x86", in_float=("conv1", "fc"))
    assert Predictor(tmp_path / "q.onnx").card == replace(
        Predictor(trained.path).card, quantization=quantization
    )
    assert Predictor(trained.path).card.quantization is None
    assert not {"conv1.weight_quantized", "fc.weight_quantized"} & set(weights_of(tmp_path / "q.onnx"))
    assert "layer1.0.conv1.weight_quantized" in weights_of(tmp_path / "q.onnx")


def test_every_device_that_reads_the_float32_file_reads_the_int8_file(
    trained: TrainedNetwork, quantizer: Callable[[str], Quantizer], tmp_path: Path
) -> None:
    quantizer("x86").write(tmp_path / "q.onnx")
    before, after = onnx.load(trained.path), onnx.load(tmp_path / "q.onnx")
    onnx.checker.check_model(after, full_check=True)
    assert after.ir_version == before.ir_version
    assert [(each.domain, each.version) for each in after.opset_import] == [("", 18)]
    for word in (b"site-packages", str(tmp_path.parent).encode(), str(Path.home()).encode() + b"/"):
        assert word not in (tmp_path / "q.onnx").read_bytes(), "of the machine that wrote it"


@pytest.mark.parametrize(("target", "largest", "activations"), [("x86", 64, "uint8"), ("arm64", 127, "int8")])
def test_a_target_has_weights_and_activations_of_its_own(
    quantizer: Callable[[str], Quantizer], tmp_path: Path, target: str, largest: int, activations: str
) -> None:
    quantizer(target).write(tmp_path / "q.onnx")
    weights = weights_of(tmp_path / "q.onnx")
    assert max(np.abs(each.astype(int)).max() for each in weights.values()) == largest
    arrays = {
        each.name: onnx.numpy_helper.to_array(each)
        for each in onnx.load(tmp_path / "q.onnx").graph.initializer
    }
    assert arrays["input_zero_point"].dtype == activations
    assert arrays["layer1.0.conv1.weight_scale"].shape == (16,), "one for each channel"


def test_another_process_writes_the_same_bytes(
    trained: TrainedNetwork, quantizer: Callable[[str], Quantizer], tmp_path: Path
) -> None:
    np.save(tmp_path / "calibration.npy", trained.calibration)
    code = (
        "import sys, numpy, pathlib; from wash_fl.export.quantization import Quantizer; "
        "model, given, path = map(pathlib.Path, sys.argv[1:]); "
        "Quantizer(model, numpy.load(given), 'x86').write(path)"
    )
    paths = [trained.path, tmp_path / "calibration.npy", tmp_path / "there.onnx"]
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)
    quantizer("x86").write(tmp_path / "here.onnx")
    assert (tmp_path / "here.onnx").read_bytes() == (tmp_path / "there.onnx").read_bytes()


def test_layers_that_int8_would_ruin_stay_in_float32(tmp_path: Path) -> None:
    model, data = uneven(tmp_path, around=True)
    result = export_int8(model, tmp_path / "q.onnx", target="x86", **data)
    assert result.in_float == ("wide", "narrow")
    assert result.tries == 3, "none, the worst one, the worst two"
    assert result.judgement.points_lost <= 0.5
    assert Predictor(tmp_path / "q.onnx").card.quantization == Quantization(
        target="x86", in_float=("wide", "narrow")
    )
    Quantizer(model, data["calibration"], "x86").write(tmp_path / "all.onnx")
    answers = Predictor(tmp_path / "all.onnx").predict(data["inputs"]).logits.argmax(axis=1)
    assert np.mean(answers == data["targets"]) < 0.6, "it would not have been ruined"


def test_a_model_that_cannot_be_kept_is_refused_and_an_earlier_file_stays(
    tmp_path: Path, refused: Callable[..., object]
) -> None:
    model, data = uneven(
        tmp_path, around=False
    )  # both its layers would have to stay, and no more than half may
    (tmp_path / "q.onnx").write_bytes(b"earlier")
    with refused(
        ExportError, "q.onnx is not written", "tolerance of 0.5", "2 tries", "100.00%", "in float32"
    ):
        export_int8(model, tmp_path / "q.onnx", target="x86", **data)
    assert (tmp_path / "q.onnx").read_bytes() == b"earlier"
    assert files(tmp_path) == ["model.onnx", "q.onnx"]


def test_a_larger_tolerance_takes_what_a_smaller_one_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = uneven(tmp_path, around=False)
    monkeypatch.setattr(
        "wash_fl.export.int8._refuse_without_gain", lambda *_: None
    )  # so small a model gains nothing
    result = export_int8(model, tmp_path / "q.onnx", target="x86", tolerance=100, **data)
    assert result.tries == 1 and result.in_float == () and result.judgement.points_lost > 30


@pytest.mark.parametrize("tolerance", [-0.1, 100.1, float("nan")])
def test_a_tolerance_that_is_none_is_refused(
    trained: TrainedNetwork, tmp_path: Path, refused: Callable[..., object], tolerance: float
) -> None:
    with refused(ExportError, "int8-tolerance", "0 to 100"):
        trained.int8(tmp_path / "q.onnx", tolerance=tolerance)
    assert files(tmp_path) == []


def test_an_unknown_target_is_refused(
    trained: TrainedNetwork, tmp_path: Path, refused: Callable[..., object]
) -> None:
    with refused(ExportError, "'riscv'", "arm64, x86"):
        trained.int8(tmp_path / "q.onnx", target="riscv")
    assert files(tmp_path) == []


def test_this_machine_is_a_target_by_its_name(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., object]
) -> None:
    for machine, target in {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm64", "arm64": "arm64"}.items():
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert choose_target() == target in SCHEMES
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with refused(ExportError, "'riscv64'", "--target"):
        choose_target()
