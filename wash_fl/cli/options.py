"""A run's options on the command line: every command that takes them takes them all."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from wash_fl.config import GROUPS, RunConfig, fields
from wash_fl.option import shown_default

Config = Annotated[
    Path | None, typer.Option("--config", help="A TOML file of options; those given here win.")
]


def settings_of(options: dict[str, Any], config: Path | None) -> RunConfig:
    """Return a run's options: those that a command was given, over those of its file if it has one."""
    return RunConfig.from_mapping(options) if config is None else RunConfig.from_toml(config, options)


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of :class:`RunConfig`; those that are not given stay None."""
    own = list(inspect.signature(command).parameters.values())
    others = [parameter for parameter in own if parameter.name != "options"]
    panels = {spec.name: group for group, kind in GROUPS.items() for spec in dataclasses.fields(kind)}
    parameters = []
    for key, spec in fields().items():
        kind = type(spec.default)
        flag = f"--{key}/--no-{key}" if kind is bool else f"--{key}"
        choices = f": {', '.join(map(str, spec.metadata['choices']))}" if spec.metadata["choices"] else ""
        option = typer.Option(
            flag,
            help=f"{spec.metadata['help']}{choices} (default: {json.dumps(shown_default(spec))})",
            # In a panel with options that have a --no- form, names of more letters do not fit on 80 columns.
            rich_help_panel="Outer step" if key.startswith("outer-") else panels[spec.name].capitalize(),
            show_default=False,
        )
        annotation: Any = Annotated[kind | None, option]
        parameters.append(
            inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )

    def run(**values: Any) -> None:
        options = {spec.name: values.pop(spec.name) for spec in fields().values()}
        command(**values, options={name: value for name, value in options.items() if value is not None})

    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others]
    run.__signature__ = inspect.Signature(keyword + parameters)  # type: ignore[attr-defined]
    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    return run
