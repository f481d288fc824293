"""A run's folder: what was asked for, what happened, and what came out, as plain files."""

import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from wash_fl.config import RunConfig
from wash_fl.errors import RunError
from wash_fl.files import write_bytes, write_text

CONFIG, METRICS, SUMMARY = "config.toml", "metrics.jsonl", "summary.json"
EXCHANGES = "exchanges.jsonl"
JOURNAL, MEMBERS = "journal.sqlite", "members"
PLACES = ("run-dir", "run-name", "state-dir")
MAY_CHANGE = (
    "min-members",
    "start-timeout",
    "round-timeout",
    "exchange-deadline",
    "deadline-spread",
    "give-up-after",
    "outlier-factor",
    "keep-members",
    "tolerance",
    "save-members",
)
"""Options that may be others when a run goes on: they say how it waits, not what it computes."""
AVERAGED, MODEL, FIGURES = "averaged.safetensors", "model.onnx", "figures"
REPORT = "report.html"
MODELS, ENSEMBLE = "models", "ensemble.onnx"


class RunFolder:
    """The files of one run.

    ========================  =====================================================
    ``config.toml``           the options as given, complete: it starts the same run
    ``metrics.jsonl``         one JSON object per event, appended as it happens
    ``exchanges.jsonl``       one JSON object per exchange: who, how far apart, bytes by member
    ``journal.sqlite``        the server's decisions: with it an unfinished run goes on
    ``averaged.safetensors``  the averaged model's state dict
    ``models/``               each member's, by its index, with ``save-members``
    ``model.onnx``            the same for inference
    ``ensemble.onnx``         what ``wash-fl export --ensemble`` makes of ``models/``
    ``figures/``              accuracy, distance between members, bytes
    ``summary.json``          the result in numbers
    ``report.html``           what ``wash-fl report`` makes of all this
    ========================  =====================================================
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, config: RunConfig) -> "RunFolder":
        """Make a folder for a new run, or open that of an unfinished run of the same name to go on with it.

        Raises
        ------
        RunError
            If the run has a name, and one of that name is finished or has other options.
        """
        root = Path(config.fleet.run_dir).expanduser().resolve()
        name = config.fleet.run_name
        if Path(name).name != name:
            raise RunError(f"run-name = {name!r} is not allowed: use a name without slashes.")
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
        base = name or f"{Path(config.task.task).stem}-{stamp}"
        for attempt in range(1, 1000):
            folder = cls(root / (base if attempt == 1 else f"{base}-{attempt}"))
            try:
                folder.path.mkdir(parents=True)
            except FileExistsError:
                if not name:
                    continue
                folder.check_resumable(config)
            except OSError as error:
                raise RunError(f"cannot make the run's folder {folder.path}: {error.strerror}.") from error
            write_text(folder.path / CONFIG, _to_toml(config))
            return folder
        raise RunError(f"{root} holds a thousand runs named {base}: move some away.")

    def check_resumable(self, config: RunConfig) -> None:
        """Check that the run of this folder can go on with these options.

        Raises
        ------
        RunError
            If it is finished, has other options, or the folder is not one of a run.
        """
        name, root = self.path.name, self.path.parent
        if (self.path / SUMMARY).exists():
            raise RunError(
                f"the run {name!r} exists in {root} and is finished: choose another run-name, or leave it "
                "empty."
            )
        if not (self.path / CONFIG).exists():
            if not self.path.is_dir() or any(self.path.iterdir()):
                raise RunError(f"{self.path} exists and is not the folder of a run: choose another run-name.")
            return  # the server died right after it had made the folder
        before, now = self.config.to_mapping(), config.to_mapping()
        changed = [
            f"{key} was {before[key]!r} and is now {now[key]!r}"
            for key in now
            if key not in (*PLACES, *MAY_CHANGE) and before[key] != now[key]
        ]
        if changed:
            raise RunError(
                f"the run {name!r} in {root} is not finished, and cannot go on with other options: "
                f"{'; '.join(changed)}. Choose another run-name, or give the options it began with."
            )

    @property
    def begun(self) -> bool:
        """Whether a server has worked on this run before."""
        return (self.path / JOURNAL).exists()

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open the folder of a run that was made before.

        Raises
        ------
        RunError
            If it is not one.
        """
        if not (path / CONFIG).is_file():
            raise RunError(f"{path} is not the folder of a run (it has no {CONFIG}): give one under runs/.")
        return cls(path)

    @property
    def config(self) -> RunConfig:
        """The run's options."""
        return RunConfig.from_toml(self.path / CONFIG)

    def log(self, event: str, **fields: Any) -> None:
        """Append an event to the metrics file: one line, written at once."""
        line = json.dumps({"event": event, **fields}, allow_nan=False) + "\n"
        with (self.path / METRICS).open("ab+") as file:
            if file.tell() and not _ends_a_line(file):
                line = "\n" + line  # a crash cut the last one short; this one must not be lost with it
            file.write(line.encode())

    def log_exchange(self, **fields: Any) -> None:
        """Append an exchange to its file."""
        with (self.path / EXCHANGES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields, allow_nan=False) + "\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events so far; a line that was cut short by a crash is passed over."""
        try:
            lines = (self.path / METRICS).read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue

    def last(self, event: str) -> dict[str, Any]:
        """Return the last event of a kind, or an empty one."""
        found: dict[str, Any] = {}
        for each in self.events():
            if each.get("event") == event:
                found = each
        return found

    def save_weights(self, weights: Mapping[str, NDArray[Any]], sha256: str) -> None:
        """Write the averaged model."""
        arrays = {name: np.asarray(each, order="C") for name, each in weights.items()}
        write_bytes(self.path / AVERAGED, save(arrays, {"sha256": sha256}))

    def weights(self) -> dict[str, NDArray[Any]]:
        """Read the averaged model back.

        Raises
        ------
        RunError
            If the run has none, or it is damaged.
        """
        return self._load(AVERAGED, "the run did not finish. Run it again.")

    def save_member(self, member: int, weights: Mapping[str, NDArray[Any]]) -> None:
        """Write a member's model as it was collected; one that was written before is replaced."""
        arrays = {name: np.asarray(each, order="C") for name, each in weights.items()}
        write_bytes(self.path / MODELS / f"{member}.safetensors", save(arrays))

    def members(self) -> dict[int, dict[str, NDArray[Any]]]:
        """Read back the models of the members that were averaged, in the order of members.

        Raises
        ------
        RunError
            If the run did not finish or has not kept them, or one is damaged.
        """
        why = "the run has not kept its members' models. Run it again with --save-members."
        return {
            member: self._load(f"{MODELS}/{member}.safetensors", why)
            for member in sorted(self.summary()["members"])
        }

    def _load(self, name: str, why_missing: str) -> dict[str, NDArray[Any]]:
        path = self.path / name
        try:
            return load_file(path)
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no {name}: {why_missing}") from error
        except SafetensorError as error:
            raise RunError(f"{path} is damaged ({error}): run it again.") from error

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the result in numbers."""
        write_text(self.path / SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")

    def summary(self) -> dict[str, Any]:
        """Read the result back.

        Raises
        ------
        RunError
            If the run did not finish, or the file is damaged.
        """
        try:
            content: dict[str, Any] = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no {SUMMARY}: the run did not finish. Run it again.") from error
        except ValueError as error:
            raise RunError(f"{self.path / SUMMARY} is damaged ({error}): run it again.") from error
        return content


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _to_toml(config: RunConfig) -> str:
    """Write flat options as TOML: JSON's strings, numbers and booleans are TOML's as well.

    But not the pairs of surrogates in which JSON escapes characters beyond 16 bits.

    Where a run keeps its files is left out, so that the file can start another run anywhere.
    """
    options = config.to_mapping().items()
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in options if key not in PLACES
    ]
    return "\n".join(lines) + "\n"
