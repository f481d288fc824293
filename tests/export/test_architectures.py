"""Each kind of model that wash_fl is for is exported with its own weights, and answers batches."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from wash_fl.export import ModelCard, Predictor, export_onnx
from wash_fl.tasks import Task, smartwatch
from wash_fl.tasks.models import MODELS, build_model


class Transformer(nn.Module):
    """Two layers of attention over the moments of a recording, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.place = nn.Parameter(torch.zeros(1, 10, 16))
        layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, dropout=0.3, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, 6, 10) to (batch, 3)."""
        logits: torch.Tensor = self.head(
            self.encoder(self.embed(inputs.transpose(1, 2)) + self.place).mean(1)
        )
        return logits


def frozen() -> nn.Module:
    """Return a CNN with torchvision's frozen BatchNorm, as pre-trained ones have, and dropout."""
    from torchvision.ops import FrozenBatchNorm2d  # takes seconds, which every collection would wait

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        FrozenBatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, 3),
    )


IMAGES = (3, 16, 16)
OTHERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "smartwatch": (smartwatch.model, smartwatch.INPUT_SHAPE),
    "transformer": (Transformer, (6, 10)),
    "frozen BatchNorm": (frozen, IMAGES),
}


@pytest.mark.parametrize("kind", [*MODELS[1:], *OTHERS])
def test_a_model_is_exported_with_its_weights_and_answers_any_batch_as_pytorch(
    kind: str, tmp_path: Path, make_task: Callable[..., Task]
) -> None:
    build, shape = OTHERS.get(kind) or (
        lambda: build_model(kind, replace(make_task(), input_shape=IMAGES)),
        IMAGES,
    )
    torch.manual_seed(0)
    model = build()
    draw = torch.Generator().manual_seed(1)
    for _ in range(2):  # statistics that are not the initial ones
        classes = model(torch.randn(8, *shape, generator=draw)).shape[1]
    model.eval()
    path = tmp_path / "model.onnx"
    card = ModelCard(classes=tuple("abcdefghij"[:classes]), input_shape=shape)
    export_onnx(model, path, card=card, examples=torch.randn(3, *shape, generator=draw))
    predictor = Predictor(path)
    for size in (1, 2, 5):
        unseen = torch.randn(size, *shape, generator=draw)
        with torch.no_grad():
            due = model(unseen).numpy()
        np.testing.assert_allclose(predictor.predict(unseen.numpy()).logits, due, rtol=0, atol=1e-4)
    names = {each.name for each in onnx.load(path).graph.initializer}
    assert names == {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
