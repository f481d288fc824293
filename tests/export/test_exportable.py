"""The copy that is exported answers as the model, with its computed weights; the model stays as it was."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from wash_fl.errors import ExportError
from wash_fl.export import ModelCard, Predictor, export_onnx
from wash_fl.export.exportable import exportable

torch.set_num_threads(1)
CARD = ModelCard(classes=("a", "b", "c"), input_shape=(8,))
INPUTS = torch.randn(17, 8, generator=torch.Generator().manual_seed(1))


class Quorum(nn.Module):
    """Takes whatever it is given, as wrappers do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)

    def forward(self, *args: torch.Tensor, **options: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(*args, **options)
        return outputs


class Constants(nn.Module):
    """Tensors that are neither parameters nor buffers, one of them computed from a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.shift = torch.tensor([0.1, 0.2, 0.3])
        self.scales = [torch.tensor(2.0), {"last": torch.tensor(0.5)}]
        self.computed = self.head.bias * 3

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(inputs) * self.scales[0] * self.scales[1]["last"]  # type: ignore[index]
        return outputs + self.shift + self.computed


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 3))
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


class TwiceTheWeight(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def twice_parametrized() -> nn.Module:
    layer = nn.Linear(8, 8)
    parametrizations.orthogonal(layer, "weight")
    parametrize.register_parametrization(layer, "weight", TwiceTheWeight())
    parametrize.register_parametrization(layer, "bias", TwiceTheWeight())
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 3))


def wrapped_inside() -> nn.Module:
    return nn.Sequential(torch.compile(nn.Linear(8, 8)), nn.ReLU(), nn.DataParallel(nn.Linear(8, 3)))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "old weight norm": lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 3))),
    "old spectral norm": lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 3))),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 3))),
    "spectral norm": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(8, 3))),
    "orthogonal": lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(8, 3))),
    "two parametrizations": twice_parametrized,
    "pruned": pruned,
    "constants": Constants,
    "any arguments": Quorum,
    "DataParallel": lambda: nn.DataParallel(nn.Linear(8, 3)),
    "torch.compile": lambda: torch.compile(nn.Sequential(nn.Linear(8, 3))),  # type: ignore[dict-item,return-value]
    "wrapped inside": wrapped_inside,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_exported_and_left_as_it_was(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = KINDS[kind]().eval()
    plain = getattr(model, "_orig_mod", model)
    with torch.no_grad():
        due = plain(INPUTS)
    before = copy.deepcopy(model.state_dict())
    types = [type(each) for each in model.modules()]
    path = tmp_path / "model.onnx"
    export_onnx(model, path, card=CARD, examples=INPUTS)
    np.testing.assert_allclose(Predictor(path).predict(INPUTS.numpy()).logits, due, rtol=0, atol=1e-5)

    assert [type(each) for each in model.modules()] == types
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    with torch.no_grad():
        assert torch.equal(plain(INPUTS), due)
    plain(INPUTS).sum().backward()
    assert all(each.grad is not None for each in model.parameters())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", ["old weight norm", "weight norm", "orthogonal", "pruned"])
def test_a_computed_weight_is_in_the_file_as_it_was_computed(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = KINDS[kind]().eval()
    with torch.no_grad():
        model(INPUTS)
        weight = model[0].weight.detach().clone()  # type: ignore[index]
    export_onnx(model, tmp_path / "model.onnx", card=CARD, examples=INPUTS)
    initializers = {each.name: each for each in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert set(initializers) == {"0.weight", "0.bias"}
    assert onnx.numpy_helper.to_array(initializers["0.weight"]).tobytes() == weight.numpy().tobytes()


def test_no_wrapper_is_left_and_names_are_those_without_it() -> None:
    """On a machine with a GPU a DataParallel would look for it."""
    for kind in ("torch.compile", "DataParallel", "wrapped inside"):
        twin = exportable(KINDS[kind]())
        assert not any(isinstance(each, nn.DataParallel) for each in twin.modules())
        assert not [name for name in twin.state_dict() if "_orig_mod" in name or "module" in name]


def test_what_cannot_be_copied_is_refused_in_one_line() -> None:
    model = nn.Sequential(nn.Linear(8, 3))
    model.lock = threading.Lock()
    with pytest.raises(ExportError, match=r"^the model cannot be copied \(TypeError: .*lock.*\): keep "):
        exportable(model)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_is_refused_in_one_line() -> None:
    for model in (torch.jit.script(nn.Linear(8, 3)), nn.Sequential(torch.jit.trace(nn.Linear(8, 3), INPUTS))):
        with pytest.raises(ExportError, match=r"TorchScript: give the torch\.nn\.Module"):
            exportable(model)
