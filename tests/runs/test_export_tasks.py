"""Tasks of whole numbers, and models that end in softmax: from training to all that answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from wash_fl.export import Predictor
from wash_fl.runs.folder import MODEL

TOKENS = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("even", "odd")
INPUT_SHAPE = (6,)
_inputs = torch.randint(1, 20, (300, 6), generator=torch.Generator().manual_seed(3))
_targets = _inputs[:, 0] % 2

def train_data():
    return TensorDataset(_inputs[:200], _targets[:200])

def test_data():
    return TensorDataset(_inputs[200:], _targets[200:])

def model():
    return nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(48, 2))
"""
SOFTMAX = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = ("even", "odd")
INPUT_SHAPE = (6,)
_inputs = torch.randn(300, 6, generator=torch.Generator().manual_seed(3))
_targets = (_inputs[:, 0] > 0).long()

def train_data():
    return TensorDataset(_inputs[:200], _targets[:200])

def test_data():
    return TensorDataset(_inputs[200:], _targets[200:])

def model():
    return nn.Sequential(nn.Linear(6, 2), nn.Softmax(1))

def loss(outputs, targets):
    return nn.functional.nll_loss(torch.log(outputs + 1e-8), targets)
"""
SHORT = ("--members", "2", "--rounds", "4", "--local-steps", "30", "--run-name", "one", "--save-members")


@pytest.mark.usefixtures("simulated_here")
@pytest.mark.parametrize(
    ("task", "kind", "outputs"), [(TOKENS, "int64", "logits"), (SOFTMAX, "float32", "probabilities")]
)
def test_a_task_is_trained_exported_checked_measured_and_answered(
    wash, tmp_path: Path, task: str, kind: str, outputs: str
) -> None:
    (tmp_path / "own.py").write_text(task)
    ran = wash("simulate", "--task", tmp_path / "own.py", "--run-dir", tmp_path, *SHORT)
    assert ran.status == 0, ran.err
    run, model = tmp_path / "one", tmp_path / "one" / MODEL
    accuracy = json.loads(wash("evaluate", run, "--json").out)
    assert accuracy["onnx"] == accuracy["averaged"] > 0.8
    assert wash("export", run, "--ensemble").status == 0
    for path in (model, run / "ensemble.onnx"):
        card = Predictor(path).card
        assert (card.input_type, card.outputs) == (kind, outputs)
    measured = wash("bench", "inference", model, "--repeats", 2, "--warm-up", 0, "--batch", "1", "--json")
    assert json.loads(measured.out)["models"][0]["check"]["problem"] == ""

    proof = Predictor(model).proof
    assert proof is not None
    np.save(tmp_path / "inputs.npy", proof.inputs)
    answered = json.loads(wash("predict", model, tmp_path / "inputs.npy", "--check", "--json").out)
    assert answered["check"]["examples"] == len(proof.inputs)
    probabilities = [each["probability"] for each in answered["predictions"]]
    powers = np.exp(proof.outputs)
    due = proof.outputs if outputs == "probabilities" else powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, due.max(axis=1), atol=1e-5)
