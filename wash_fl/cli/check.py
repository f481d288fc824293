"""``wash-fl check``: whether a task can become a right model, before anything is started."""

import json
import time
from typing import Annotated, Any

import typer

from wash_fl.cli.options import Config, settings_of, with_run_options
from wash_fl.cli.terminal import COLOURS, Json, err, out, say
from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(with_run_options(check))


def check(
    *,
    options: dict[str, Any],
    named: Annotated[
        str | None,
        typer.Argument(
            metavar="[TASK]", help="Name, module or file of the task; as --task.", show_default=False
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Try it in int8 too, as export --int8 will make it.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check a task's data, model and training step, and export its untrained model, in seconds.

    TASK is a built-in task, an importable module, or a file such as my_task.py; by default that of --task.
    Everything is made twice, here and in a new process, and must be the same. Nothing is trained, and
    Flower is not started. The commands simulate, serve and compare do the same first.
    """
    if named is not None and options.setdefault("task", named) != named:
        raise ConfigError(f"two tasks, {named!r} and --task {options['task']!r}: give one.")
    settings = settings_of(options, config)
    from wash_fl.checks.run import findings

    began = time.perf_counter()
    results = []
    for each in findings(settings, exports=False, int8=int8):
        results.append(each)
        if not as_json:
            out.print(f"[{COLOURS[each.level]}]{each.level:8}[/]", end=" ")
            say(out, f"{each.name}: {each.detail}")
            if each.advice:
                say(out, f"         -> {each.advice}")
    warnings, seconds = sum(each.level == "warning" for each in results), time.perf_counter() - began
    if as_json:
        content = {"task": settings.task.task, "warnings": warnings, "seconds": seconds}
        print(json.dumps(content | {"findings": [each.as_json() for each in results]}))
        return
    verdict = {0: "all is well", 1: "1 warning"}.get(warnings, f"{warnings} warnings")
    say(out, f"{settings.task.task}: {verdict}; {len(results)} findings in {seconds:.1f} s")


def refuse_bad_task(settings: RunConfig, *, exports: bool = True) -> None:
    """Check the task of a run that is about to start, and say what may be wrong with it.

    Parameters
    ----------
    settings : RunConfig
        The run's options.
    exports : bool
        Whether the run ends with an export.

    Raises
    ------
    WashError
        If the run cannot come to a right model.
    """
    from wash_fl.checks.run import check as check_all

    for each in check_all(settings, exports=exports):
        if each.level != "ok":
            say(err, f"{each.level}: {each.name}: {each.detail}; {each.advice}")
