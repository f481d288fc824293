"""A run's folder: what was asked for, what happened, and what came out, as plain files."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError

from wash_fl.config import RunConfig, read_options
from wash_fl.errors import RunError
from wash_fl.files import private_folder, write_text
from wash_fl.option import AUTO
from wash_fl.runs.json_lines import append_line, json_lines
from wash_fl.storage.weights_file import read_weights, write_weights
from wash_fl.system.locks import is_locked, locked

COMMAND, SERVER = ".command.lock", ".server.lock"
"""Held by the command that started a run, and by the ServerApp that works on it: often two processes."""

END_SECONDS = 15.0
"""How long a ServerApp waits for an earlier one that is about to end."""

CONFIG, METRICS, SUMMARY = "config.toml", "metrics.jsonl", "summary.json"
EXCHANGES = "exchanges.jsonl"
JOURNAL, MEMBERS = "journal.sqlite", "members"
LOG = "flower.log"
PLACES = ("run-dir", "run-name", "state-dir")
MAY_CHANGE = (
    "min-members",
    "start-timeout",
    "round-timeout",
    "exchange-deadline",
    "fallback",
    "deadline-spread",
    "give-up-after",
    "outlier-factor",
    "keep-members",
    "final-average",
    "tolerance",
    "test-vectors",
    "save-members",
)
"""Options that may be others when a run goes on: they say how it waits, not what it computes."""
AVERAGED, MODEL, FIGURES = "averaged.safetensors", "model.onnx", "figures"
REPORT = "report.html"
PROBE_BYTES = 1 << 20
"""Less room than this is no room: a run that has begun would soon come to its end."""
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
    ``flower.log``            what Flower said
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
        folder = cls._place(config)
        folder._begin(config)
        return folder

    @classmethod
    @contextmanager
    def claimed(cls, config: RunConfig) -> Iterator["RunFolder"]:
        """Make the folder of a run that a command starts, and keep other commands from the run meanwhile.

        Raises
        ------
        RunError
            If files cannot be made there, a command or a server is at work on the run, or it cannot go on
            with these options.
        """
        folder = cls._place(config)
        try:
            with locked(folder.path / COMMAND, busy=folder._busy("another command")):
                if is_locked(folder.path / SERVER):
                    raise RunError(folder._busy("a server"))
                folder.check_resumable(config)
                folder._check_space()
                yield folder
        finally:
            with suppress(OSError):  # only if nothing has come of it
                folder.path.rmdir()

    @classmethod
    def check_free(cls, config: RunConfig) -> None:
        """Raise what :meth:`claimed` would, before anything that takes time is done for the run.

        Nothing is left behind.
        """
        root = cls._root(config)
        new_folders = [each for each in (root, *root.parents) if not each.exists()]
        try:
            with cls.claimed(config):
                pass
        finally:
            for each in new_folders:
                with suppress(OSError):
                    each.rmdir()

    @classmethod
    @contextmanager
    def at_work(cls, config: RunConfig) -> Iterator["RunFolder"]:
        """Do what :meth:`create` does, and keep other servers from the run meanwhile.

        Raises
        ------
        RunError
            If another server is at work on the run, or it cannot go on with these options.
        """
        folder = cls._place(config)
        with locked(folder.path / SERVER, busy=folder._busy("another server"), wait=END_SECONDS):
            folder._begin(config)
            # Half files, of a whole model most likely, that a server which was killed has left.
            for leftover in folder.path.glob(".*.part"):
                leftover.unlink(missing_ok=True)
            yield folder

    @staticmethod
    def _root(config: RunConfig) -> Path:
        return Path(config.fleet.run_dir).expanduser().resolve()

    @classmethod
    def _place(cls, config: RunConfig) -> "RunFolder":
        """Make the folder if it is not there; of a run without a name it is a new one."""
        root, name = cls._root(config), config.fleet.run_name
        for attempt in range(1, 1000):
            folder = cls(root / (name or default_name(config, attempt)))
            try:
                private_folder(folder.path, new=True)
            except FileExistsError:
                if not name:
                    continue
                folder.check_is_runs()
                private_folder(folder.path)  # of an older version
            except OSError as error:
                raise RunError(f"cannot make the run's folder {folder.path}: {error.strerror}.") from error
            return folder
        raise RunError(f"{root} holds a thousand runs named {default_name(config)}: move some away.")

    def _begin(self, config: RunConfig) -> None:
        self.check_resumable(config)
        write_text(self.path / CONFIG, _to_toml(config))

    def _busy(self, who: str) -> str:
        return (
            f"{who} is at work on the run {self.path.name!r} in {self.path.parent}: wait for its end, or "
            "choose another run-name."
        )

    def _check_space(self) -> None:
        """Check that there is room for what a run writes at its beginning."""
        probe = self.path / ".space.part"
        try:
            try:
                probe.write_bytes(bytes(PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot write to the run's folder {self.path}: {error.strerror}. Mend this, or choose "
                "another run-dir."
            ) from error

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
        self.check_is_runs()
        if not (self.path / CONFIG).exists():
            return  # nobody came to write its options
        before, now = self.config.to_mapping(), config.to_mapping()
        changed = [
            f"{key} was {before[key]!r} and is now {now[key]!r}"
            for key in now
            # What is left open is as it was.
            if key not in (*PLACES, *MAY_CHANGE) and now[key] != AUTO and before[key] != now[key]
        ]
        if changed:
            advice = "give the options it began with"
            if before["topology"] != now["topology"] != AUTO and "recipe" not in self._written_options():
                advice = "leave topology out: the version that began it averaged over all, whatever that was"
            raise RunError(
                f"the run {name!r} in {root} is not finished, and cannot go on with other options: "
                f"{'; '.join(changed)}. Choose another run-name, or {advice}."
            )

    def check_is_runs(self) -> None:
        """Check that this is the folder of a run, or one in which nothing is but what a start leaves behind.

        Raises
        ------
        RunError
            If it is not.
        """
        try:
            names = {each.name for each in self.path.iterdir()}
        except OSError as error:
            raise RunError(
                f"{self.path} exists and is not the folder of a run ({error.strerror}): choose another "
                "run-name."
            ) from error
        others = {each for each in names if not each.endswith(".part")}
        if CONFIG not in names and not others <= {LOG, MEMBERS, COMMAND, SERVER}:
            raise RunError(f"{self.path} exists and is not the folder of a run: choose another run-name.")

    @property
    def has_journal(self) -> bool:
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
        """The run's options.

        Of an older version's run they are what it meant: its averages were over all, whatever topology was.
        """
        return RunConfig.from_mapping(_as_written(self._written_options()))

    def _written_options(self) -> dict[str, Any]:
        return read_options(self.path / CONFIG)

    def log(self, event: str, **fields: Any) -> None:
        """Append an event to the metrics file: one line, written at once."""
        append_line(self.path / METRICS, {"event": event, **fields})

    def log_exchange(self, **fields: Any) -> None:
        """Append an exchange to its file."""
        append_line(self.path / EXCHANGES, fields)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events so far; a line that was cut short by a crash is passed over."""
        for line in json_lines(self.path / METRICS):
            if line is not None and "event" in line:
                yield line

    def last(self, event: str) -> dict[str, Any]:
        """Return the last event of a kind, or an empty one."""
        latest: dict[str, Any] = {}
        for each in self.events():
            if each.get("event") == event:
                latest = each
        return latest

    def save_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Write the averaged model."""
        write_weights(self.path / AVERAGED, weights)

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
        write_weights(self.path / MODELS / f"{member}.safetensors", weights)

    def members(self) -> dict[int, dict[str, NDArray[Any]]]:
        """Read back the models of the members that were averaged, in the order of members.

        Raises
        ------
        RunError
            If the run did not finish or has not kept them, or one is damaged.
        """
        why = "the run has not kept its members' models. Run it again with --save-members."
        members = self.summary().get("members")
        if not isinstance(members, list) or not all(type(member) is int for member in members):
            raise RunError(f"{self.path / SUMMARY} is damaged (it does not name the members): run it again.")
        return {member: self._load(f"{MODELS}/{member}.safetensors", why) for member in sorted(members)}

    def _load(self, name: str, why_missing: str) -> dict[str, NDArray[Any]]:
        path = self.path / name
        try:
            return read_weights(path)
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
            content = json.loads((self.path / SUMMARY).read_bytes())
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no {SUMMARY}: the run did not finish. Run it again.") from error
        except ValueError as error:
            raise RunError(f"{self.path / SUMMARY} is damaged ({error}): run it again.") from error
        if not isinstance(content, dict):
            raise RunError(f"{self.path / SUMMARY} is damaged (it holds no object): run it again.")
        return content


def _as_written(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run's file, those of a version without recipes by what they meant there."""
    if "recipe" in options:
        return options
    paper = options.get("schedule") == "paper"
    if paper or options.get("schedule") == AUTO:
        options["schedule"] = "decreasing" if paper else "size-aware"
    if options.get("mix", AUTO) == AUTO:
        options["mix"] = "shuffle" if paper else "average"
    if options["mix"] == "average":
        options["topology"] = "all"
    return options | {"recipe": "none"}


def default_name(config: RunConfig, attempt: int = 1) -> str:
    """Return the name of a run that was given none: from the task and the time."""
    name = f"{Path(config.task.task).stem}-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}"
    return name if attempt == 1 else f"{name}-{attempt}"


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
