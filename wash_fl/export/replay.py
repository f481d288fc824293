"""Replaying on this machine the test vectors that a model file carries."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from wash_fl.errors import ExportError
from wash_fl.export.inference import Predictor
from wash_fl.export.parity import compare


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How a model file answers its own test vectors here.

    Parameters
    ----------
    examples : int
        How many there are.
    largest_difference, tolerance : float
        Between two outputs, and what is accepted; the first is None if an output here is not finite.
    worst_example : int
        The one that has it, from 0.
    here : dict of str to str
        The runtime's version and the processor.
    checked : dict of str to str
        What the file was checked with.
    problem, advice : str
        What is off and what to do; both are empty if the answers are right.
    """

    examples: int
    largest_difference: float | None
    tolerance: float
    worst_example: int
    here: dict[str, str]
    checked: dict[str, str]
    problem: str
    advice: str

    @property
    def message(self) -> str:
        """The problem and what to do about it, in one line."""
        return f"{self.problem}: {self.advice}."

    @property
    def summary(self) -> str:
        """What was found where the answers are right."""
        examples = f"{self.examples} test vector{'' if self.examples == 1 else 's'}"
        return (
            f"{examples} answered as they should be, largest difference {self.largest_difference:.2g} of "
            f"{self.tolerance:g}, with {_listed(self.here)}"
        )


def replay(predictor: Predictor) -> Replay:
    """Let a model answer its test vectors, one at a time and all at once.

    Raises
    ------
    ExportError
        If the file carries none, or the runtime refuses them.
    """
    proof = predictor.proof
    if proof is None:
        raise ExportError(
            f"{predictor.path} carries no test vectors, so its answers cannot be checked here: export the "
            "model again, with --test-vectors 8."
        )
    parities = [
        compare(predictor.predict(proof.inputs, batch_size=size).logits, proof.outputs, proof.tolerance)
        for size in (1, len(proof.inputs))
    ]
    worst = max(parities, key=lambda each: (bool(each.fault), each.largest_difference))
    here = {"onnxruntime": predictor.runtime, "processor": platform.machine()}
    problem = advice = ""
    if worst.fault:
        problem = (
            f"{predictor.path} answers otherwise here than it should: {worst.fault}. Here is "
            f"{_listed(here)}, and it was checked with {_listed(proof.versions)}"
        )
        advice = f"install onnxruntime {proof.versions.get('onnxruntime', 'in another version')}"
    return Replay(
        examples=worst.examples,
        largest_difference=worst.largest_difference if isfinite(worst.largest_difference) else None,
        tolerance=worst.tolerance,
        worst_example=worst.worst_example,
        here=here,
        checked=dict(proof.versions),
        problem=problem,
        advice=advice,
    )


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "nothing that it names"
