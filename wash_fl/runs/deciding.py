"""What a run's options leave open: as it began, if it has begun, and as its recipe has it if not."""

from pathlib import Path

from wash_fl.config import RunConfig
from wash_fl.core.recipes import resolve
from wash_fl.option import AUTO
from wash_fl.runs.folder import CONFIG, RunFolder
from wash_fl.tasks.division import is_divided
from wash_fl.tasks.task import Task


def decided(config: RunConfig, task: Task) -> RunConfig:
    """Return a run's options with none left open.

    Raises
    ------
    ConfigError
        If they do not go together.
    """
    return resolve(as_begun(config), divided=is_divided(task, config))


def as_begun(config: RunConfig) -> RunConfig:
    """Return a run's options, those left open as it began with them if it has begun."""
    path = Path(config.fleet.run_dir).expanduser().resolve() / config.fleet.run_name
    if not config.fleet.run_name or not (path / CONFIG).exists():
        return config
    before = RunFolder(path).config.to_mapping()
    fixed = {key: value for key, value in config.to_mapping().items() if value != AUTO}
    open_ = config.open | ({"recipe"} if config.exchange.recipe == AUTO else set())
    return RunConfig.from_mapping(fixed | {key: before[key] for key in open_})
