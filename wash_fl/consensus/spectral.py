"""The singular vectors that a spectral norm divides by: those of the averaged weight, not the members' mean.

A layer with spectral norm computes its weight's norm from two unit vectors that follow the weight by one step
of power iteration per training step. Their mean over members is shorter than 1, so the norm would come out
too small and the layer's outputs too large.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.core.rules import SpectralNorm

STEPS: Final = 1000
"""At most; they end when the norm stays what it is."""

TOLERANCE: Final = 1e-9
"""What part of the norm the last step changes: far below float32's precision."""


def recomputed(arrays: Mapping[str, NDArray[Any]], norms: Iterable[SpectralNorm]) -> dict[str, NDArray[Any]]:
    """Return arrays in which the vectors of spectral norms are those of their weights."""
    anew = dict(arrays)
    for norm in norms:
        anew[norm.u], anew[norm.v] = singular_vectors(
            anew[norm.weight], anew[norm.u], anew[norm.v], dim=norm.dim, eps=norm.eps
        )
    return anew


def singular_vectors(
    weight: NDArray[Any], u: NDArray[Any], v: NDArray[Any], *, dim: int, eps: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the first left and right singular vectors of a weight, by power iteration from a member's.

    Parameters
    ----------
    weight : ndarray
        The averaged weight.
    u, v : ndarray, shapes (rows,) and (columns,)
        Where to start; returned as they are if the weight maps them to nothing.
    dim : int
        The dimension of the weight that is the matrix's rows; all others are its columns.
    eps : float
        What a vector's length is taken for at least.
    """
    matrix = np.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1).astype(np.float64)
    left, before = u.astype(np.float64), 0.0
    for _ in range(STEPS):
        # Not by BLAS, which adds up in another order with another number of threads.
        right = _unit(np.einsum("ij,i->j", matrix, left), eps)
        image = np.einsum("ij,j->i", matrix, right)
        norm = float(np.sqrt(np.square(image).sum()))
        if not norm > eps:
            return u, v
        left = _unit(image, eps)
        if abs(norm - before) <= TOLERANCE * norm:
            break
        before = norm
    return left.astype(u.dtype), right.astype(v.dtype)


def _unit(vector: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    return vector / max(float(np.sqrt(np.square(vector).sum())), eps)
