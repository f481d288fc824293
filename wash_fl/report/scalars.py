"""A run's curves as TensorBoard reads them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from wash_fl.errors import RunError
from wash_fl.runs.record import RunRecord


class Scalar(NamedTuple):
    """A point of a curve."""

    tag: str
    step: int
    value: float


def run_scalars(record: RunRecord) -> Iterator[Scalar]:
    """Yield the points of a run's curves; a step is a round, and what came out is at the last one."""
    for each in record.rounds:
        for member, metrics in sorted(each.metrics.items()):
            for name, value in metrics.items():
                yield Scalar(f"{name}/member {member}", each.number, value)
        for kind, distance in (("absolute", each.distance), ("relative", each.relative_distance)):
            if distance is not None:
                yield Scalar(f"distance/{kind}", each.number, distance)
        for kind, count in each.traffic.items():
            yield Scalar(f"bytes/{kind}", each.number, count)
    if record.result is not None:
        rounds = record.config.training.rounds if record.config is not None else 0
        last = record.rounds[-1].number if record.rounds else rounds
        for name in ("averaged", "ensemble", "mean_member"):
            yield Scalar(f"accuracy/{name}", last, getattr(record.result, name))


def write_scalars(folder: Path, scalars: Iterable[Scalar]) -> None:
    """Write scalars as an event file; what an earlier one in the folder says no longer counts.

    Raises
    ------
    RunError
        If the folder cannot be written to.
    """
    import tensorboard  # noqa: F401  (named first, so that a missing package is missed by its own name)
    from torch.utils.tensorboard import SummaryWriter

    try:
        # To TensorBoard a run that starts again at 0: without it, a second report would double every curve.
        with SummaryWriter(str(folder), purge_step=0) as writer:
            for each in scalars:
                writer.add_scalar(each.tag, each.value, each.step)
    except OSError as error:
        raise RunError(f"cannot write event files into {folder}: {error.strerror or error}.") from error
