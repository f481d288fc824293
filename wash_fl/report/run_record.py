"""A run's folder read back and checked, for whoever tells of the run afterwards."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from wash_fl.config import RunConfig
from wash_fl.errors import RunError, WashError
from wash_fl.report.run_folder import EXCHANGES, METRICS, MODEL, SUMMARY, RunFolder

T = TypeVar("T")


@dataclass(frozen=True)
class Round:
    """What is known of a round.

    Attributes
    ----------
    number : int
        Starting at 1.
    metrics : dict
        What each member reported: named numbers. The names are the client's.
    aside : dict
        Members that were set aside in it, and why.
    distance, relative_distance : float or None
        Between two members; None where nothing was exchanged that tells.
    sent : dict
        Bytes since the run began, over all members, by direction and kind.
    """

    number: int
    metrics: dict[int, dict[str, float]]
    aside: dict[int, str]
    distance: float | None
    relative_distance: float | None
    sent: dict[str, int]

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Self:
        """Read a round's event."""
        return cls(
            number=int(event["round"]),
            metrics={
                int(member): {str(name): float(value) for name, value in metrics.items()}
                for member, metrics in event["members"].items()
            },
            aside=_reasons(event.get("set_aside", {})),
            distance=_number(event.get("distance")),
            relative_distance=_number(event.get("relative_distance")),
            sent=_counts(event["bytes"]),
        )


@dataclass(frozen=True)
class Result:
    """What came out of a finished run; None is what its summary does not say."""

    averaged: float
    ensemble: float
    mean_member: float
    members: dict[int, float]
    left_out: dict[int, str]
    sent: dict[str, int]
    agreement: float | None
    difference: float | None
    weights_sha256: str | None

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Self:
        """Read a run's summary."""
        accuracy, onnx = summary["accuracy"], summary.get("onnx", {})
        return cls(
            averaged=float(accuracy["averaged"]),
            ensemble=float(accuracy["ensemble"]),
            mean_member=float(accuracy["mean_member"]),
            members={int(member): float(value) for member, value in accuracy["members"].items()},
            left_out=_reasons(summary.get("left_out", {})),
            sent=_counts(summary.get("bytes", {})),
            agreement=_number(onnx.get("agreement")),
            difference=_number(onnx.get("largest_difference")),
            weights_sha256=summary.get("weights_sha256"),
        )


@dataclass
class MemberBytes:
    """What a member sent up and got down in all exchanges: values, and all that carried them."""

    up_values: int = 0
    up_messages: int = 0
    down_values: int = 0
    down_messages: int = 0
    exchanges: int = 0


@dataclass(frozen=True)
class ModelFile:
    """The exported model."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it, finished or not.

    Attributes
    ----------
    name : str
        The folder's.
    config : RunConfig
        The options.
    rounds : list of Round
        In order; of a round that was repeated after a crash, the last.
    collected : dict
        Test accuracy of each member that was collected at the end.
    result : Result or None
        None if the run is not finished.
    failure : str
        Why the run stopped, if it did and has not gone on since; else empty.
    by_member : dict
        Each member's bytes; empty if the folder does not tell.
    model : ModelFile or None
        None if it is not in the folder.
    version : str
        The version that ran it last.
    """

    name: str
    config: RunConfig
    rounds: list[Round]
    collected: dict[int, float]
    result: Result | None
    failure: str
    by_member: dict[int, MemberBytes] = field(default_factory=dict)
    model: ModelFile | None = None
    version: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the folder of a run.

        Raises
        ------
        RunError
            If it is not one, or is damaged.
        """
        folder = RunFolder.open(path)
        metrics, summary, exchanges = path / METRICS, path / SUMMARY, path / EXCHANGES
        events = _sound(metrics, lambda: [each for each in folder.events() if isinstance(each, dict)])
        states = _of(events, "start", "resume", "failed", "finished")
        return cls(
            name=path.resolve().name,
            config=folder.config,
            rounds=_sound(metrics, lambda: rounds_of(events)),
            collected=_sound(metrics, lambda: _collected(events)),
            result=_sound(summary, lambda: Result.of(folder.summary())) if summary.exists() else None,
            failure=str(states[-1].get("reason", "")) if states and states[-1]["event"] == "failed" else "",
            by_member=_sound(exchanges, lambda: _by_member(exchanges)),
            model=_model(path / MODEL),
            version=next((str(each["version"]) for each in reversed(states) if "version" in each), ""),
        )

    @property
    def members(self) -> list[int]:
        """Every member that has taken part."""
        found = {member for each in self.rounds for member in (*each.metrics, *each.aside)}
        found |= self.collected.keys()
        if self.result is not None:
            found |= self.result.members.keys() | self.result.left_out.keys()
        return sorted(found)

    @property
    def sent(self) -> dict[str, int]:
        """Bytes over all members so far, by direction and kind; empty if nothing tells."""
        if self.result is not None and self.result.sent:
            return self.result.sent
        return self.rounds[-1].sent if self.rounds else {}


def rounds_of(events: Iterable[Mapping[str, Any]]) -> list[Round]:
    """Return the rounds among a run's events, in order."""
    found = {each.number: each for each in map(Round.of, _of(events, "round"))}
    return [found[number] for number in sorted(found)]


def _of(events: Iterable[Mapping[str, Any]], *kinds: str) -> list[Mapping[str, Any]]:
    return [each for each in events if each.get("event") in kinds]


def _collected(events: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    return {int(each["member"]): float(each["accuracy"]) for each in _of(events, "member")}


def _by_member(path: Path) -> dict[int, MemberBytes]:
    found: dict[int, MemberBytes] = {}
    for line in _lines(path):
        for name, (up, up_rest, down, down_rest) in line["bytes"].items():
            sums = found.setdefault(int(name), MemberBytes())
            sums.up_values += up
            sums.up_messages += up + up_rest
            sums.down_values += down
            sums.down_messages += down + down_rest
        for member in line["members"]:
            found.setdefault(int(member), MemberBytes()).exchanges += 1
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a file's lines but those that a crash cut short."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def _model(path: Path) -> ModelFile | None:
    try:
        with path.open("rb") as file:
            return ModelFile(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    except FileNotFoundError:
        return None


def _sound(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except WashError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path} is damaged ({reason}): there is no telling what the run did.") from error


def _reasons(given: Mapping[str, Any]) -> dict[int, str]:
    return {int(member): str(reason) for member, reason in given.items()}


def _counts(given: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in given.items()}


def _number(given: Any) -> float | None:
    return None if given is None else float(given)
