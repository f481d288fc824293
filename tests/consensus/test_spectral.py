"""The vectors of a spectral norm are those of the averaged weight, from whatever member they start."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from wash_fl.consensus.spectral import recomputed, singular_vectors
from wash_fl.core.rules import SpectralNorm


@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    dim=st.integers(0, 3),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_they_are_of_length_one_and_give_the_norm(
    shape: list[int], dim: int, scale: float, seed: int
) -> None:
    generator = np.random.Generator(np.random.Philox(seed))
    dim %= len(shape)
    weight = (generator.standard_normal(shape) * scale).astype(np.float32)
    matrix = np.moveaxis(weight, dim, 0).reshape(shape[dim], -1).astype(np.float64)
    u, v = (generator.standard_normal(size).astype(np.float32) for size in matrix.shape)
    left, right = singular_vectors(weight, u / np.linalg.norm(u), v, dim=dim, eps=1e-12)
    assert left.dtype == right.dtype == np.float32
    assert np.linalg.norm(left) == pytest.approx(1.0, abs=1e-6)
    assert np.linalg.norm(right) == pytest.approx(1.0, abs=1e-6)
    assert left @ matrix @ right == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-3)


def test_a_weight_of_zeros_leaves_what_was_there() -> None:
    u, v = np.array([0.6, 0.8], np.float32), np.array([1.0], np.float32)
    left, right = singular_vectors(np.zeros((2, 1), np.float32), u, v, dim=0, eps=1e-12)
    assert left is u and right is v


@pytest.mark.parametrize("layer", [nn.Linear(5, 4), nn.Conv2d(3, 4, 2), nn.ConvTranspose2d(3, 4, 2)])
def test_torch_then_divides_by_the_norm(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer = parametrizations.spectral_norm(layer)
    norm = layer.parametrizations.weight[0]
    with torch.no_grad():
        layer.parametrizations.weight.original.normal_()
    state = {name: each.numpy() for name, each in layer.state_dict().items()}
    names = SpectralNorm(
        "parametrizations.weight.original",
        "parametrizations.weight.0._u",
        "parametrizations.weight.0._v",
        norm.dim,
        norm.eps,
    )
    anew = recomputed(state, [names])
    assert [name for name, each in anew.items() if each is not state[name]] == [names.u, names.v]
    layer.load_state_dict({name: torch.from_numpy(each) for name, each in anew.items()})
    matrix = layer.eval().weight.detach().movedim(norm.dim, 0).flatten(1)
    assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1.0, rel=1e-4)
