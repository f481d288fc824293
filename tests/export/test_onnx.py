"""The exported file answers as its model does, or it is not there."""

import copy
import functools
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import wash_fl.export.onnx as exporting
import wash_fl.export.translate as translating
from wash_fl.errors import ExportError
from wash_fl.export import ModelCard, Predictor, compare, export_onnx
from wash_fl.export.proof import KEY, prove
from wash_fl.export.seal import sealed
from wash_fl.export.translate import OPSET, translate
from wash_fl.extras import install_hint

torch.set_num_threads(1)

CARD = ModelCard(
    classes=("cat", "dog", "owl"), input_shape=(1, 8, 8), preprocessing="x / 255", run={"seed": "7"}
)
EXAMPLES = torch.rand(17, 1, 8, 8, generator=torch.Generator().manual_seed(1))
COMPLETE_CARD = replace(CARD, input_range=(float(EXAMPLES.min()), float(EXAMPLES.max())))
"""The card as the exporter completes it."""


def tiny() -> nn.Sequential:
    """Return a small CNN in evaluation mode, with BatchNorm statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(64, 3),
    )
    for _ in range(3):
        model(torch.rand(16, 1, 8, 8) * 2 - 0.5)
    return model.eval()


class Lambda(nn.Module):
    """A small model, with one function for a ``forward``."""

    def __init__(self, forward: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = forward
        self.head = nn.Linear(64, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.function(self.head, inputs)


@functools.cache
def exported_once() -> tuple[onnx.ModelProto, dict[str, torch.Tensor]]:
    return translate(tiny(), EXAMPLES)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Translate :func:`tiny` once for the tests of what happens afterwards."""
    monkeypatch.setattr(translating, "translate", lambda *_: copy.deepcopy(exported_once()))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "model.onnx"
    started = time.perf_counter()
    parity = export_onnx(tiny(), path, card=CARD, examples=EXAMPLES)
    print(f"tiny CNN: {time.perf_counter() - started:.1f} s, {parity.largest_difference:.2g}")
    assert (parity.examples, parity.agreement, parity.ties) == (17, 1.0, 0)
    assert 0 <= parity.largest_difference < 1e-5
    return path


def refusal(model: nn.Module, path: Path, **options: object) -> str:
    with pytest.raises(ExportError) as caught:
        export_onnx(model, path, **({"card": CARD, "examples": EXAMPLES} | options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def answers(model: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(inputs).numpy()


@pytest.mark.parametrize("size", [1, 3, 17])
def test_the_file_answers_as_pytorch_at_every_batch_size(good: Path, size: int) -> None:
    session = onnxruntime.InferenceSession(str(good), providers=["CPUExecutionProvider"])
    inputs = torch.rand(size, 1, 8, 8)
    logits = session.run(["logits"], {"input": inputs.numpy()})[0]
    np.testing.assert_allclose(logits, answers(tiny(), inputs), rtol=0, atol=1e-5)


def test_the_input_is_named_and_its_batch_is_dynamic(good: Path) -> None:
    proto = onnx.load(good)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    assert [port.name for port in (*proto.graph.input, *proto.graph.output)] == ["input", "logits"]
    assert dims[0].dim_param and not dims[0].HasField("dim_value")
    assert [dim.dim_value for dim in dims[1:]] == [1, 8, 8]
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", OPSET)]


def test_the_initializers_are_the_weights_bit_for_bit_and_nothing_else(good: Path) -> None:
    weights = {name: value for name, value in tiny().state_dict().items() if "num_batches" not in name}
    initializers = {
        initializer.name: onnx.numpy_helper.to_array(initializer)
        for initializer in onnx.load(good).graph.initializer
    }
    assert set(initializers) == set(weights)
    for name, array in initializers.items():
        assert array.tobytes() == weights[name].numpy().tobytes(), name


def test_onnxruntime_can_fuse_the_batchnorm_that_the_file_keeps(good: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(good), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(good).graph.node]
    fused = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert operators.count("BatchNormalization") == 2
    assert "Expand" not in operators
    assert "BatchNormalization" not in fused


def test_the_file_tells_nothing_of_the_machine_that_wrote_it(good: Path) -> None:
    content = good.read_bytes()
    for word in (b"site-packages", b".py", b"File ", str(Path.home()).encode() + b"/", b"test_onnx"):
        assert word not in content, word


def test_the_file_carries_its_card(good: Path) -> None:
    assert Predictor(good).card == COMPLETE_CARD


def test_the_file_carries_examples_pytorchs_answers_and_what_it_was_checked_with(good: Path) -> None:
    proof = Predictor(good).proof
    assert proof is not None and proof.tolerance == 1e-4
    assert len({int(each.argmax()) for each in proof.outputs}) > 1
    due = answers(tiny(), torch.from_numpy(proof.inputs))
    np.testing.assert_allclose(proof.outputs, due, rtol=0, atol=1e-6)
    assert proof.versions["torch"] == torch.__version__ and proof.versions["opset"] == str(OPSET)
    assert proof.versions["onnxruntime"] == onnxruntime.__version__


def test_the_same_weights_make_the_same_bytes(good: Path, tmp_path: Path) -> None:
    export_onnx(tiny(), tmp_path / "again.onnx", card=CARD, examples=EXAMPLES)
    assert (tmp_path / "again.onnx").read_bytes() == good.read_bytes()


def test_the_file_is_alone_in_its_folder_and_as_readable_as_any(good: Path) -> None:
    assert files(good.parent) == ["model.onnx"]
    (good.parent / "any").touch()
    assert good.stat().st_mode == (good.parent / "any").stat().st_mode
    (good.parent / "any").unlink()


def test_the_given_model_and_torchs_generator_are_left_as_they_were(tmp_path: Path) -> None:
    model = tiny()
    model[0].weight.requires_grad_(False)
    model(EXAMPLES).sum().backward()
    before = copy.deepcopy(model)
    generator = torch.get_rng_state()
    export_onnx(model, tmp_path / "model.onnx", card=CARD, examples=EXAMPLES)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module.training for module in model.modules())
    for (name, now), was in zip(model.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(now, was), name
        assert now.requires_grad == was.requires_grad
        assert (now.grad is None) == (not now.requires_grad)
    for now, was in zip(model.buffers(), before.buffers(), strict=True):
        assert torch.equal(now, was)


def test_a_copy_is_exported_and_not_the_given_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = []

    def spy(model: nn.Module, _: torch.Tensor) -> tuple[onnx.ModelProto, dict[str, torch.Tensor]]:
        received.append(model)
        return copy.deepcopy(exported_once())

    monkeypatch.setattr(translating, "translate", spy)
    model = tiny()
    export_onnx(model, tmp_path / "model.onnx", card=CARD, examples=EXAMPLES)
    mine = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert mine.isdisjoint(tensor.data_ptr() for tensor in received[0].state_dict().values())


def test_one_example_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert export_onnx(tiny(), path, card=CARD, examples=EXAMPLES[:1]).examples == 1
    assert Predictor(path).predict(EXAMPLES.numpy(), batch_size=5).logits.shape == (17, 3)


def test_constants_of_a_forward_and_tied_weights_are_no_changed_weights(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(64, 64, bias=False)
            self.two = nn.Linear(64, 64, bias=False)
            self.two.weight = self.one.weight
            self.head = nn.Linear(64, 3)
            self.unused = nn.Linear(2, 2)
            self.register_buffer("scale", torch.tensor(0.5), persistent=False)
            self.plain = torch.tensor([0.1, 0.2, 0.3])

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            hidden = self.two(self.one(inputs.flatten(1) * self.scale))
            return self.head(hidden) + self.plain * torch.tensor([1.0, 2.0, 3.0])

    parity = export_onnx(Odd().eval(), tmp_path / "odd.onnx", card=CARD, examples=EXAMPLES)
    assert parity.agreement == 1.0


# Refused before anything is written.


def whole(model: nn.Sequential) -> None:
    model.train()


def only_batchnorm(model: nn.Sequential) -> None:
    model[4].train()


def only_dropout(model: nn.Sequential) -> None:
    model[8].train()


@pytest.mark.parametrize(
    ("fault", "named"), [(whole, "Sequential"), (only_batchnorm, "'4' (BatchNorm2d)"), (only_dropout, "'8'")]
)
def test_training_mode_is_refused(tmp_path: Path, fault: Callable[[nn.Sequential], None], named: str) -> None:
    model = tiny()
    fault(model)
    message = refusal(model, tmp_path / "model.onnx")
    assert named in message
    assert "model.eval()" in message
    assert files(tmp_path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["0.weight", "9.bias", "4.running_var"])
def test_weights_that_are_not_finite_are_refused_by_their_name(
    tmp_path: Path, name: str, value: float
) -> None:
    model = tiny()
    model.state_dict()[name].view(-1)[-1] = value
    message = refusal(model, tmp_path / "model.onnx")
    assert repr(name) in message
    assert "NaN or infinity" in message
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("examples", "part"),
    [
        (EXAMPLES.double(), "torch.float64"),
        (EXAMPLES[:0], "(0, 1, 8, 8)"),
        (EXAMPLES[0], "(1, 8, 8)"),
        (EXAMPLES[:, :, :4], "(17, 1, 4, 8)"),
        (torch.tensor(1.0), "()"),
        (EXAMPLES / 0, "NaN or infinity"),
    ],
)
def test_examples_that_are_no_inputs_are_refused(tmp_path: Path, examples: torch.Tensor, part: str) -> None:
    message = refusal(tiny(), tmp_path / "model.onnx", examples=examples)
    assert "the examples" in message
    assert part in message


def test_a_card_with_other_classes_than_the_model_is_refused(tmp_path: Path) -> None:
    card = ModelCard(classes=("a", "b"), input_shape=(1, 8, 8))
    message = refusal(tiny(), tmp_path / "model.onnx", card=card)
    assert "(17, 3)" in message
    assert "(17, 2)" in message


def test_a_model_that_returns_no_tensor_or_raises_is_refused(tmp_path: Path) -> None:
    two = Lambda(lambda head, inputs: (head(inputs.flatten(1)), inputs))  # type: ignore[arg-type,return-value]
    assert "output is tuple" in refusal(two.eval(), tmp_path / "model.onnx")
    message = refusal(Lambda(lambda head, inputs: head(inputs)).eval(), tmp_path / "model.onnx")
    assert "cannot answer the examples (RuntimeError: " in message


@pytest.mark.parametrize("tolerance", [0.0, -1e-4, float("nan"), float("inf")])
def test_an_impossible_tolerance_is_refused(tmp_path: Path, tolerance: float) -> None:
    assert "tolerance" in refusal(tiny(), tmp_path / "model.onnx", tolerance=tolerance)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "make it first" in refusal(tiny(), tmp_path / "absent" / "model.onnx")


def test_a_missing_package_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = refusal(tiny(), tmp_path / "model.onnx")
    assert "onnxscript" in message
    assert install_hint("server") in message


# Refused after the file has been written.

Fault = Callable[[onnx.ModelProto], None]


def change_weight(proto: onnx.ModelProto) -> None:
    initializer = next(part for part in proto.graph.initializer if part.name == "9.weight")
    changed = onnx.numpy_helper.to_array(initializer).copy()
    changed[0, 0] = np.nextafter(changed[0, 0], np.float32(9))
    initializer.CopyFrom(onnx.numpy_helper.from_array(changed, "9.weight"))


def add_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "extra"))


def reshape_weight(proto: onnx.ModelProto) -> None:
    initializer = next(part for part in proto.graph.initializer if part.name == "9.bias")
    changed = onnx.numpy_helper.to_array(initializer).reshape(1, 3)
    initializer.CopyFrom(onnx.numpy_helper.from_array(changed, "9.bias"))


def drop_relu(proto: onnx.ModelProto) -> None:
    next(node for node in proto.graph.node if node.op_type == "Relu").op_type = "Identity"


def change_epsilon(proto: onnx.ModelProto) -> None:
    node = next(node for node in proto.graph.node if node.op_type == "BatchNormalization")
    next(part for part in node.attribute if part.name == "epsilon").f = 0.1


def make_outputs_nan(proto: onnx.ModelProto) -> None:
    node = next(node for node in proto.graph.node if node.op_type == "BatchNormalization")
    next(part for part in node.attribute if part.name == "epsilon").f = float("nan")


def fix_batch(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 17


def fix_batch_at_one(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def break_edge(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "nowhere"


def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].op_type = "Rectify"


def forge_card(proto: onnx.ModelProto) -> None:
    next(part for part in proto.metadata_props if part.key == "wash_fl.classes").value = '["dog","cat","owl"]'


def forge_proof(proto: onnx.ModelProto) -> None:
    others = [part for part in proto.metadata_props if part.key != KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(others)


def forge_answer(proto: onnx.ModelProto) -> None:
    prove(proto, EXAMPLES.numpy(), np.ones((17, 3), np.float32), tolerance=1e-4, versions={})


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (change_weight, "initializer '9.weight'"),
        (add_weight, "initializer 'extra'"),
        (reshape_weight, "initializer '9.bias'"),
        (drop_relu, "outputs differ by up to"),
        (change_epsilon, "outputs differ by up to"),
        (make_outputs_nan, "not finite"),
        (fix_batch, "cannot answer 1 examples"),
        (fix_batch_at_one, "cannot answer 17 examples"),
        (break_edge, "not valid ONNX"),
        (unknown_operator, "not valid ONNX"),
        (forge_card, "another card"),
        (forge_proof, "carries no test vectors"),
        (forge_answer, "answers otherwise here than it should"),
    ],
)
def test_a_file_changed_on_its_way_to_disk_is_refused_kept_aside_and_the_good_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, reason: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the good file")
    write = Path.write_bytes

    def tamper(partial: Path, content: bytes) -> None:
        proto = onnx.ModelProto.FromString(content)
        fault(proto)
        write(partial, sealed(proto))

    monkeypatch.setattr(Path, "write_bytes", tamper)
    message = refusal(tiny(), path)
    assert reason in message
    assert str(tmp_path / "model.refused.onnx") in message
    assert ".part" not in message
    assert files(tmp_path) == ["model.onnx", "model.refused.onnx"]
    assert path.read_bytes() == b"the good file"
    assert onnx.load(tmp_path / "model.refused.onnx").graph.node, "the refused file can be looked at"


@pytest.mark.usefixtures("quick")
def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    model = tiny()
    model[9].bias.data[1] += 1e-6
    assert "initializer '9.bias'" in refusal(model, tmp_path / "model.onnx")


@pytest.mark.usefixtures("quick")
def test_a_tolerance_below_the_difference_refuses(tmp_path: Path) -> None:
    assert "above the tolerance of 1e-12" in refusal(tiny(), tmp_path / "model.onnx", tolerance=1e-12)


@pytest.mark.usefixtures("quick")
def test_a_good_export_takes_the_place_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old file")
    export_onnx(tiny(), path, card=CARD, examples=EXAMPLES)
    assert Predictor(path).card == COMPLETE_CARD
    assert files(tmp_path) == ["model.onnx"]


def test_an_exporter_that_fuses_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *args, **options: export(*args, **options | {"optimize": True})
    )
    assert "is not the model's" in refusal(tiny(), tmp_path / "model.onnx")


def test_answers_that_depend_on_the_rest_of_the_batch_are_refused(tmp_path: Path) -> None:
    model = tiny()
    model[4] = nn.BatchNorm2d(4, track_running_stats=False).eval()
    refusal(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_dropout_that_never_stops_is_refused(tmp_path: Path) -> None:
    model = Lambda(lambda head, inputs: head(nn.functional.dropout(inputs.flatten(1), 0.5, training=True)))
    refusal(model.eval(), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_inputs_prepared_differently_are_noticed(good: Path) -> None:
    reference = answers(tiny(), (EXAMPLES - 0.5) / 0.5)
    parity = compare(Predictor(good).predict(EXAMPLES.numpy()).logits, reference, 1e-4)
    with pytest.raises(ExportError, match="inputs are prepared differently"):
        parity.raise_if_refused()


def test_a_tie_is_no_reason_to_refuse_and_another_answer_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny()
    with torch.no_grad():
        # Class 0 is ahead of class 1 by 1e-5, always.
        model[9].weight[1] = model[9].weight[0]
        model[9].bias.copy_(torch.tensor([1e-5, 0.0, -100.0]))
    translated = translate(copy.deepcopy(model), EXAMPLES)
    monkeypatch.setattr(translating, "translate", lambda *_: copy.deepcopy(translated))
    truth = answers(model, EXAMPLES)

    def shift_reference(shift: float) -> None:
        shifted = truth + np.array([-shift, shift, 0.0], np.float32)
        monkeypatch.setattr(exporting, "answers", lambda *_: shifted)
        monkeypatch.setattr(exporting, "refuse_company", lambda *_: None)

    shift_reference(2e-5)  # PyTorch would say class 1, by 3e-5
    parity = export_onnx(model, tmp_path / "model.onnx", card=CARD, examples=EXAMPLES, tolerance=1e-4)
    assert (parity.ties, parity.agreement) == (17, 0.0)
    shift_reference(9e-5)  # by 1.7e-4: no tie, although no output is off by more than the tolerance
    message = refusal(model, tmp_path / "model.onnx", tolerance=1e-4)
    assert "top-1 answer differs for example 0 of 17" in message


# Nothing is left behind.


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("holder", "where"), [(Path, "write_bytes"), (exporting, "_check_graph"), (exporting, "compare")]
)
def test_an_interrupt_leaves_the_good_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: object, where: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the good file")
    real = getattr(holder, where)

    def interrupted(*args: object) -> None:
        real(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(holder, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(tiny(), path, card=CARD, examples=EXAMPLES)
    assert files(tmp_path) == ["model.onnx"]
    assert path.read_bytes() == b"the good file"


@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refusal(tiny(), tmp_path / "model.onnx")
    assert files(tmp_path) == []


def noise() -> tuple[object, ...]:
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "torch.export", "onnxscript")]
    root = logging.getLogger()
    levels = [(each.level, each.disabled, each.propagate) for each in (root, *loggers)]
    return levels, list(root.handlers), root.manager.disable, list(warnings.filters), sys.stdout, sys.stderr


def branching(head: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    return head(inputs.flatten(1)) if inputs.sum() > 0 else head(-inputs.flatten(1))


def test_the_exporter_is_quiet_when_it_succeeds(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="onnxscript")
    caplog.set_level(logging.DEBUG, logger="torch.onnx")
    before = noise()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(tiny(), tmp_path / "model.onnx", card=CARD, examples=EXAMPLES)
    assert noise() == before
    assert capfd.readouterr() == ("", "")


def test_the_exporter_is_quiet_when_it_fails_and_its_reason_is_passed_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="onnxscript")
    before = noise()
    message = refusal(Lambda(branching).eval(), tmp_path / "model.onnx")
    assert noise() == before
    assert capfd.readouterr() == ("", "")
    assert "data-dependent" in message
    assert files(tmp_path) == []


def test_errors_logged_while_exporting_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object, **__: object) -> None:
        logging.getLogger("onnxscript").warning("advice")
        logging.getLogger("onnxscript").error("a real error")
        logging.getLogger("somebody.else").warning("of another thread")
        raise ValueError("the reason\nand its details")

    monkeypatch.setattr(torch.onnx, "export", failing)
    message = refusal(tiny(), tmp_path / "model.onnx")
    assert "(ValueError: the reason, at test_onnx.py:" in message
    assert caplog.messages == ["a real error", "of another thread"]
