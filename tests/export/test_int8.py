"""An int8 file is there if it answers as well as its float32 file and gains something, and not otherwise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from wash_fl.errors import ExportError
from wash_fl.export import ModelCard, Predictor, export_onnx
from wash_fl.export import int8 as module
from wash_fl.export.int8 import export_int8, try_int8
from wash_fl.export.quantization import SCHEMES, Quantizer, this_target
from wash_fl.export.replay import replay
from wash_fl.export.seal import sealed

Data = dict[str, np.ndarray]

STEP = 100 / 255
"""Of int8, where a tensor's values lie between -50 and 50."""


class RareClass(nn.Module):
    """Tells four classes by two large features, and a fifth, which is like the first, by a small one."""

    def __init__(self, hidden: int = 600, strength: float = 100, due: float = 2) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, hidden), nn.Linear(hidden, 5)
        with torch.no_grad():
            for each in (self.first, self.last):
                each.weight.zero_()
                each.bias.zero_()
            self.first.weight[:4, :2] = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
            self.first.weight[4, 2] = strength
            self.first.bias[4] = -0.1 * strength * STEP
            self.last.weight[:4, :4] = torch.eye(4)
            self.last.weight[4, [0, 4]] = 1
            self.last.bias[4] = -due

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, 3) to five logits."""
        outputs: torch.Tensor = self.last(torch.relu(self.first(inputs)))
        return outputs


def rare_class(folder: Path, **options: float) -> tuple[Path, Data]:
    """Return a float32 file that is always right, and data of which 0.3 % are of the class ``rare``.

    The small feature is 0 or less but in the rare class, where it is about half of a step of int8: a third
    of them are rounded to 0.
    """
    generator = torch.Generator().manual_seed(6)
    targets = torch.randint(4, (2667,), generator=generator)
    targets[:8] = 4
    center = torch.tensor([[40.0, 0], [-40, 0], [0, 40], [0, -40], [40, 0]])[targets]
    near = (center + 3 * torch.randn(len(targets), 2, generator=generator)).clamp(-50, 50)
    small = torch.zeros(len(targets), 1)
    small[:8, 0] = STEP * torch.tensor([0.6, 0.4, 0.7, 0.6, 0.4, 0.65, 0.4, 0.7])
    inputs = torch.cat([near, small], dim=1)
    inputs[8, 0], inputs[9, 0] = -50, 50
    targets[8], targets[9] = 1, 0
    path = folder / "model.onnx"
    card = ModelCard(classes=("right", "left", "up", "down", "rare"), input_shape=(3,))
    export_onnx(RareClass(**options).eval(), path, card=card, examples=inputs[:20], tolerance=1e-3)
    return path, {"calibration": inputs[:256].numpy(), "inputs": inputs.numpy(), "targets": targets.numpy()}


@pytest.mark.parametrize("target", SCHEMES)
def test_a_file_that_ruins_a_rare_class_is_not_accepted_for_its_accuracy(tmp_path: Path, target: str) -> None:
    model, data = rare_class(tmp_path)
    Quantizer(model, data["calibration"], target).write(tmp_path / "all.onnx")
    answers = Predictor(tmp_path / "all.onnx").predict(data["inputs"]).logits.argmax(axis=1)
    right = answers == data["targets"]
    assert right.mean() > 0.998 and right[data["targets"] == 4].mean() == 5 / 8, "nothing is ruined"

    result = export_int8(model, tmp_path / "q.onnx", target=target, **data)
    assert result.in_float == ("first",) and result.tries == 2
    rare = result.judgement.classes[4]
    assert (rare.name, rare.examples, rare.float32_right, rare.int8_right) == ("rare", 8, 8, 8)


def test_a_class_that_cannot_be_kept_is_named_with_its_recall(
    tmp_path: Path, refused: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = rare_class(tmp_path)
    monkeypatch.setattr(Quantizer, "harm", lambda *_: {"first": 0.0, "last": 0.0})
    with refused(ExportError, "q.onnx is not written", "'rare' falls from 100.00% to 62.50%", "3 of its 8"):
        export_int8(model, tmp_path / "q.onnx", target="x86", **data)
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("target", SCHEMES)
def test_a_file_that_is_neither_smaller_nor_faster_is_not_written(
    tmp_path: Path, refused: Callable[..., object], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    model, data = rare_class(tmp_path, hidden=8)
    data["inputs"], data["targets"] = data["inputs"][8:], data["targets"][8:]
    monkeypatch.setattr(module, "compare", lambda *_: {"1": {"ratio": 1.0, "ratio_p75": 1.01}})
    with refused(ExportError, "int8 gains nothing", f"instead of {model.stat().st_size:,}", "float32 file"):
        export_int8(model, tmp_path / "q.onnx", target=target, **data)
    assert not (tmp_path / "q.onnx").exists()
    with refused(ExportError, "int8 gains nothing"):
        try_int8(model, data["calibration"], target)


def test_a_larger_file_is_written_if_it_is_faster_here_and_is_for_here(
    tmp_path: Path, refused: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, data = this_target(), rare_class(tmp_path, hidden=8)[1]
    if here is None:
        pytest.skip("this machine is no target")
    data["inputs"], data["targets"] = data["inputs"][8:], data["targets"][8:]
    monkeypatch.setattr(module, "compare", lambda *_: {"1": {"ratio": 0.9, "ratio_p75": 0.99}})
    result = export_int8(tmp_path / "model.onnx", tmp_path / "q.onnx", target=here, **data)
    assert result.int8_bytes > result.float32_bytes
    (other,) = set(SCHEMES) - {here}
    with refused(ExportError, "int8 gains nothing", f"no {other} machine"):
        export_int8(tmp_path / "model.onnx", tmp_path / "q.onnx", target=other, **data)


def test_a_smaller_file_is_written_though_it_is_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = rare_class(tmp_path)
    latency = {"1": {"ratio": 3.0, "ratio_p75": 3.0}}
    monkeypatch.setattr(module, "compare", lambda *_: latency)
    result = export_int8(model, tmp_path / "q.onnx", target="x86", **data)
    assert result.int8_bytes < result.float32_bytes and result.latency == latency


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_float32_file_that_answers_with_nan_is_refused(
    tmp_path: Path, refused: Callable[..., object], wrong: float
) -> None:
    model, data = rare_class(tmp_path)
    with (
        refused(ExportError, "model.onnx answers test examples with NaN or infinity"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(Predictor, "logits", lambda _, batch: np.full((len(batch), 5), wrong, dtype=np.float32))
        export_int8(model, tmp_path / "q.onnx", target="x86", **data)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"targets": np.zeros(3, dtype=int)}, "the targets are int64 of shape (3,)"),
        ({"targets": np.full(2667, 5)}, "from 5 to 5, but the model's class indices from 0 to 4"),
        ({"targets": np.zeros(2667)}, "float64"),
        ({"inputs": np.zeros((0, 3), dtype=np.float32)}, "the test inputs have shape (0, 3)"),
        ({"inputs": np.zeros((5, 4), dtype=np.float32)}, "the test inputs have shape (5, 4)"),
        ({"calibration": np.zeros((0, 3), dtype=np.float32)}, "the calibration inputs have shape (0, 3)"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(
    tmp_path: Path, refused: Callable[..., object], changes: Data, part: str
) -> None:
    model, data = rare_class(tmp_path, hidden=8)
    with refused(ExportError, part):
        export_int8(model, tmp_path / "q.onnx", target="x86", **(data | changes))


def test_calibration_by_one_example_or_by_one_class_is_judged_as_any_other(
    tmp_path: Path, refused: Callable[..., object]
) -> None:
    model, data = rare_class(tmp_path)
    one = data["inputs"][10:11]
    alike = data["inputs"][data["targets"] == 2][:32]
    for calibration in (one, alike):
        # What is larger than in calibration is cut off, and the classes look alike.
        with refused(ExportError, "q.onnx is not written", "the recall of the class"):
            export_int8(model, tmp_path / "q.onnx", target="x86", **(data | {"calibration": calibration}))


def test_a_constant_activation_keeps_its_value(tmp_path: Path) -> None:
    class Constant(RareClass):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) + 7.3 * self.first(0 * inputs)[:, :1] + torch.full((5,), 2.5)

    inputs = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    card = ModelCard(classes=tuple("abcde"), input_shape=(3,))
    export_onnx(Constant(40).eval(), tmp_path / "m.onnx", card=card, examples=inputs)
    Quantizer(tmp_path / "m.onnx", inputs.numpy(), "x86").write(tmp_path / "q.onnx")
    onnx.checker.check_model(str(tmp_path / "q.onnx"))
    before, after = (
        Predictor(tmp_path / name).predict(inputs.numpy()).logits for name in ("m.onnx", "q.onnx")
    )
    assert np.abs(before - after).max() < 0.03 * np.abs(before).max()


def test_the_ranges_are_right_for_a_class_that_is_rare_in_the_calibration_data(tmp_path: Path) -> None:
    model, data = rare_class(tmp_path, strength=900, due=70)
    rare = data["targets"] == 4
    calibration = np.concatenate([data["inputs"][~rare], data["inputs"][rare]])
    result = export_int8(model, tmp_path / "q.onnx", target="x86", **(data | {"calibration": calibration}))
    assert result.judgement.classes[4].int8_right == 8
    first = Quantizer(model, calibration[:256], "x86")
    first.write(tmp_path / "first.onnx", in_float=result.in_float)
    answers = Predictor(tmp_path / "first.onnx").predict(data["inputs"][rare]).logits.argmax(axis=1)
    assert (answers != 4).all(), "it would not have been cut off"


@pytest.mark.parametrize("target", SCHEMES)
def test_a_file_in_int8_carries_its_own_answers_as_its_proof(tmp_path: Path, target: str) -> None:
    model, data = rare_class(tmp_path)
    result = export_int8(model, tmp_path / "q.onnx", target=target, **data)
    predictor = Predictor(result.model)
    proof = predictor.proof
    assert proof is not None and replay(predictor).problem == ""
    np.testing.assert_array_equal(proof.outputs, predictor.predict(proof.inputs).logits)
    source = Predictor(model).proof
    assert source is not None and proof.versions == source.versions
    np.testing.assert_array_equal(proof.inputs, source.inputs)
    assert result.int8_bytes == result.model.stat().st_size

    proto = onnx.load(result.model)
    (weight,) = (each for each in proto.graph.initializer if each.name == "last.weight_quantized")
    array = onnx.numpy_helper.to_array(weight).copy()
    array[:, :4] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    result.model.write_bytes(sealed(proto))
    assert "answers otherwise here" in replay(Predictor(result.model)).problem


def test_a_file_in_int8_that_is_damaged_does_not_answer(
    tmp_path: Path, refused: Callable[..., object]
) -> None:
    model, data = rare_class(tmp_path)
    result = export_int8(model, tmp_path / "q.onnx", target="x86", **data)
    content = bytearray(result.model.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(each ^ 1 for each in content[middle : middle + 200])
    result.model.write_bytes(content)
    with refused(ExportError, "q.onnx is damaged"):
        Predictor(result.model)
