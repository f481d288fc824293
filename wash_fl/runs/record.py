"""A run's folder read back as far as it is whole, for whoever tells of the run afterwards."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from wash_fl.config import RunConfig
from wash_fl.runs.folder import CONFIG, EXCHANGES, METRICS, MODEL, SUMMARY, RunFolder
from wash_fl.runs.reading import Reading


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
    traffic : dict
        Bytes since the run began, over all members, by direction and kind.
    """

    number: int
    metrics: dict[int, dict[str, float]]
    aside: dict[int, str]
    distance: float | None
    relative_distance: float | None
    traffic: dict[str, int]

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
            traffic=_counts(event["bytes"]),
        )


@dataclass(frozen=True)
class Result:
    """What came out of a finished run; None is what its summary does not say."""

    averaged: float
    ensemble: float
    mean_member: float
    members: dict[int, float]
    left_out: dict[int, str]
    traffic: dict[str, int]
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
            traffic=_counts(summary.get("bytes", {})),
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
    """A run as far as its folder tells it, finished or not.

    Attributes
    ----------
    name : str
        The folder's.
    config : RunConfig or None
        The options; None if they cannot be read.
    rounds : list of Round
        In order; of a round that was repeated after a crash, the last.
    collected : dict
        Test accuracy of each member that was collected at the end.
    result : Result or None
        None if the run is not finished, or its summary cannot be read.
    failure : str
        Why the run stopped, if it did and has not gone on since; else empty.
    finished : bool
        Whether the run has come to its end.
    averaged : float or None
        Test accuracy of the averaged model as it was logged; None if there was none yet.
    by_member : dict
        Each member's bytes; empty if the folder does not tell.
    model : ModelFile or None
        None if it is not in the folder.
    version : str
        The version that ran it last.
    missing : list of str
        What is damaged or lost of the folder, a line each; the rest is told without it.
    """

    name: str
    config: RunConfig | None
    rounds: list[Round]
    collected: dict[int, float]
    result: Result | None
    failure: str
    finished: bool = False
    averaged: float | None = None
    by_member: dict[int, MemberBytes] = field(default_factory=dict)
    model: ModelFile | None = None
    version: str = ""
    missing: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the folder of a run.

        Raises
        ------
        RunError
            If it is not one.
        """
        folder, reading = RunFolder.open(path), Reading()
        config = reading.whole(CONFIG, lambda: folder.config)
        events = reading.lines(path / METRICS, _event)
        rounds = {each.number: each for each in reading.rows(METRICS, _of(events, "round"), Round.of)}
        collected = reading.rows(METRICS, _of(events, "member"), _collected)
        averages = reading.rows(METRICS, _of(events, "averaged", "recalibrated"), _accuracy)
        states = _of(events, "start", "resume", "failed", "finished")
        last = states[-1] if states else {"event": ""}
        result = None
        if (path / SUMMARY).exists():
            result = reading.whole(SUMMARY, lambda: Result.of(folder.summary()))
        elif last["event"] == "finished":
            reading.miss(f"{SUMMARY} is not there any more")
        return cls(
            name=path.resolve().name,
            config=config,
            rounds=[rounds[number] for number in sorted(rounds)],
            collected=dict(collected),
            result=result,
            failure=str(last.get("reason", "")) if last["event"] == "failed" else "",
            finished=last["event"] == "finished" or (path / SUMMARY).exists(),
            averaged=averages[-1] if averages else None,
            by_member=_by_member(reading.lines(path / EXCHANGES, _Exchange.of)),
            model=_model(path / MODEL),
            version=next((str(each["version"]) for each in reversed(states) if "version" in each), ""),
            missing=reading.missing(),
        )

    @property
    def members(self) -> list[int]:
        """Every member that has taken part."""
        members = {member for each in self.rounds for member in (*each.metrics, *each.aside)}
        members |= self.collected.keys()
        if self.result is not None:
            members |= self.result.members.keys() | self.result.left_out.keys()
        return sorted(members)

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes over all members so far, by direction and kind; empty if nothing tells."""
        if self.result is not None and self.result.traffic:
            return self.result.traffic
        return self.rounds[-1].traffic if self.rounds else {}


def rounds_of(events: Iterable[Mapping[str, Any]]) -> list[Round]:
    """Return the rounds among a run's events, in order."""
    by_number = {each.number: each for each in map(Round.of, _of(events, "round"))}
    return [by_number[number] for number in sorted(by_number)]


def _of(events: Iterable[Mapping[str, Any]], *kinds: str) -> list[Mapping[str, Any]]:
    return [each for each in events if each.get("event") in kinds]


def _event(row: Mapping[str, Any]) -> Mapping[str, Any]:
    str(row["event"])
    return row


def _collected(event: Mapping[str, Any]) -> tuple[int, float]:
    return int(event["member"]), float(event["accuracy"])


def _accuracy(event: Mapping[str, Any]) -> float:
    return float(event["accuracy"])


@dataclass(frozen=True)
class _Exchange:
    """Who took part in an exchange, and its bytes by member: up of values and of the rest, down likewise."""

    members: list[int]
    traffic: dict[int, tuple[int, int, int, int]]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        traffic = {}
        for name, counts in row["bytes"].items():
            up, up_rest, down, down_rest = map(int, counts)
            traffic[int(name)] = up, up_rest, down, down_rest
        return cls([int(member) for member in row["members"]], traffic)


def _by_member(exchanges: Iterable[_Exchange]) -> dict[int, MemberBytes]:
    sums: dict[int, MemberBytes] = {}
    for each in exchanges:
        for member, (up, up_rest, down, down_rest) in each.traffic.items():
            own = sums.setdefault(member, MemberBytes())
            own.up_values += up
            own.up_messages += up + up_rest
            own.down_values += down
            own.down_messages += down + down_rest
        for member in each.members:
            sums.setdefault(member, MemberBytes()).exchanges += 1
    return sums


def _model(path: Path) -> ModelFile | None:
    try:
        with path.open("rb") as file:
            return ModelFile(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError:
        return None


def _reasons(reasons: Mapping[str, Any]) -> dict[int, str]:
    return {int(member): str(reason) for member, reason in reasons.items()}


def _counts(counts: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in counts.items()}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
