"""What a run on Flower needs wherever it runs: its options in a file, its events as they come."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from wash_fl.config import RunConfig
from wash_fl.core.recipes import resolve
from wash_fl.files import private_opener
from wash_fl.option import AUTO
from wash_fl.runs.deciding import as_begun
from wash_fl.runs.folder import LOG, RunFolder, default_name

OnEvent = Callable[[dict[str, Any]], None]

POLL_SECONDS = 0.2


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return the options with absolute paths and a name, for they are read in other processes.

    What a named recipe decides is decided, too, for the plane says how Flower is started; ``auto`` waits for
    the task.

    Raises
    ------
    ConfigError
        If there is no such task, or the options do not go together.
    RunError
        If the run has a name, and one of that name is finished or has other options.
    """
    run_dir = Path(config.fleet.run_dir).expanduser().resolve()
    name = config.fleet.run_name
    if not name:
        names = (default_name(config, attempt) for attempt in range(1, 1000))
        name = next(each for each in names if not (run_dir / each).exists())
    task = config.task.task
    changes = {
        "task": str(Path(task).expanduser().resolve()) if task.endswith(".py") else task,
        "run-dir": str(run_dir),
        "run-name": name,
    }
    config = RunConfig.from_mapping(config.to_mapping() | changes)
    if (run_dir / name).exists():
        RunFolder(run_dir / name).check_resumable(config)
    config = as_begun(config)
    return config if config.exchange.recipe == AUTO else resolve(config, divided=True)


def write_options(config: RunConfig, path: Path) -> None:
    """Write the options as the file that ``flwr run --run-config`` reads."""
    options = config.to_mapping().items()
    # JSON's strings, numbers and booleans are TOML's, but for the surrogates in which JSON escapes.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in options]
    path.write_text("".join(lines), encoding="utf-8")


def count_events(folder: Path) -> int:
    """Return how many events the run in ``folder`` has, which may not exist yet."""
    return sum(1 for _ in RunFolder(folder).events())


def keep_log(log: Path, folder: Path) -> None:
    """Append what Flower said to the log in the run's folder, where there is room for it."""
    if folder.is_dir() and log.is_file():
        # A full disk may be why the run has failed, and that is what has to be said.
        with (
            suppress(OSError),
            log.open("rb") as source,
            open(folder / LOG, "ab", opener=private_opener) as target,
        ):
            shutil.copyfileobj(source, target)


def follow(folder: Path, has_ended: Callable[[], bool], after: int = 0) -> Iterator[dict[str, Any]]:
    """Yield a run's events as they are written, until it has ended.

    Parameters
    ----------
    folder : Path
        The run's; it may not exist yet.
    has_ended : callable
        Whether nothing writes events any more.
    after : int
        Events of earlier attempts, which are passed over.
    """
    count = after
    while True:
        # Asked before the events are read, so that the last ones are not missed.
        last = has_ended()
        events = list(RunFolder(folder).events())
        yield from events[count:]
        count = max(count, len(events))
        if last:
            return
        time.sleep(POLL_SECONDS)
