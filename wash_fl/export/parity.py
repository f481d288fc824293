"""Whether two programs that hold the same model give the same answers."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError

PARITY_EXAMPLES: Final = 256
"""Test inputs on which a run's ONNX file is compared with PyTorch."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the outputs of a session are from those of its reference.

    Parameters
    ----------
    examples : int
        How many examples were compared.
    largest_difference : float
        The largest absolute difference between two outputs; infinite if an output is not finite.
    worst_example : int
        The index of the example that has it.
    agreement : float
        The fraction of the examples whose top-1 answers are equal.
    ties : int
        Examples whose top-1 answers differ although the reference's own margin between the two answers
        is below the tolerance: either answer is right, so a tie is no reason to refuse.
    first_disagreement : int or None
        The first example whose top-1 answers differ without being a tie.
    tolerance : float
        The largest difference that is accepted.
    """

    examples: int
    largest_difference: float
    worst_example: int
    agreement: float
    ties: int
    first_disagreement: int | None
    tolerance: float

    @property
    def fault(self) -> str:
        """What is wrong with the answers; empty if the session answers as its reference does."""
        return self._verdict()[0]

    def raise_if_refused(self) -> None:
        """Return if the session answers as its reference does.

        Raises
        ------
        ExportError
            If an output is not finite, a difference is above the tolerance, or a top-1 answer differs
            without being a tie.
        """
        fault, remedy = self._verdict()
        if fault:
            raise ExportError(f"{fault}: {remedy}.")

    def _verdict(self) -> tuple[str, str]:
        """Return what is wrong and what to do about it."""
        if not math.isfinite(self.largest_difference):
            return (
                f"outputs that are not finite, first for example {self.worst_example} of {self.examples} "
                f"(largest difference inf, tolerance {self.tolerance:g})",
                "look for overflow in the model",
            )
        if self.largest_difference > self.tolerance:
            return (
                f"outputs differ by up to {self.largest_difference:.3g} (example {self.worst_example} of "
                f"{self.examples}), above the tolerance of {self.tolerance:g}",
                "it is not the same model, its inputs are prepared differently, or its answers depend on "
                "chance or on the batch",
            )
        if self.first_disagreement is not None:
            return (
                f"the top-1 answer differs for example {self.first_disagreement} of {self.examples}, by more "
                f"than a tie (largest difference {self.largest_difference:.3g}, tolerance "
                f"{self.tolerance:g})",
                "lower the tolerance to see where the outputs part",
            )
        return "", ""


def compare(session_outputs: NDArray[Any], reference_outputs: NDArray[Any], tolerance: float) -> Parity:
    """Compare outputs, example by example.

    Parameters
    ----------
    session_outputs, reference_outputs : ndarray of float, shape (examples, classes)
        The same examples in the same order. The reference decides what is a tie.
    tolerance : float
        The largest difference that is accepted; finite and above 0.

    Raises
    ------
    ExportError
        If the shapes are not two equal ``(examples, classes)``, there is nothing to compare, or the
        tolerance is not allowed. A difference raises nothing here: see :meth:`Parity.raise_if_refused`.
    """
    refuse_tolerance(tolerance)
    shape = reference_outputs.shape
    if session_outputs.shape != shape or len(shape) != 2 or 0 in shape:
        raise ExportError(
            f"outputs of shapes {session_outputs.shape} and {shape} cannot be compared: "
            "give both as (examples, classes), with at least one of each."
        )
    # Subtracting in float64 keeps the difference itself free of rounding and of overflow.
    session, reference = session_outputs.astype(np.float64), reference_outputs.astype(np.float64)
    finite = np.isfinite(session) & np.isfinite(reference)
    with np.errstate(invalid="ignore"):
        difference = np.where(finite, np.abs(session - reference), np.inf).max(axis=1)
    ours, theirs = session.argmax(axis=1), reference.argmax(axis=1)
    rows = np.arange(len(reference))
    with np.errstate(invalid="ignore"):
        margin = reference[rows, theirs] - reference[rows, ours]
    differs = ours != theirs
    tied = differs & (margin < tolerance)
    disagreements = np.flatnonzero(differs & ~tied)
    worst = int(difference.argmax())
    return Parity(
        examples=len(reference),
        largest_difference=float(difference[worst]),
        worst_example=worst,
        agreement=float(np.mean(~differs)),
        ties=int(tied.sum()),
        first_disagreement=int(disagreements[0]) if len(disagreements) else None,
        tolerance=tolerance,
    )


def refuse_tolerance(tolerance: float) -> None:
    """Raise :class:`ExportError` for a tolerance that would accept everything or nothing."""
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ExportError(f"tolerance = {tolerance!r} must be a finite number above 0: try 1e-4.")
