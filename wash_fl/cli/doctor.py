"""``wash-fl doctor``: whether this machine can be a device of a fleet."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from wash_fl.cli.options import Config, settings_of, with_run_options
from wash_fl.cli.terminal import COLOURS, out, say
from wash_fl.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(with_run_options(doctor))


def doctor(
    *,
    options: dict[str, Any],
    superlink: Annotated[
        str | None, typer.Option("--superlink", metavar="HOST:PORT", help="The SuperLink to reach.")
    ] = None,
    root_certificates: Annotated[
        Path | None,
        typer.Option("--root-certificates", help="The fleet's ca.crt, by which the SuperLink is known."),
    ] = None,
    member: Annotated[int, typer.Option(min=0, help="Which member it will train: whose data it has.")] = 0,
    onnx: Annotated[
        Path | None,
        typer.Option("--onnx", metavar="FILE", help="An exported model: does it answer here as it should?"),
    ] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Check this machine before it joins a fleet, and say what to do about each finding.

    Options of a run, such as --task, --model and --batch-size, say what it will train: a few steps are tried.
    The exit status is 1 if there is a problem.
    """
    from wash_fl.doctor import Address, examine

    settings = settings_of(options, config)
    if root_certificates is not None and superlink is None:
        raise ConfigError("--root-certificates has no use without --superlink HOST:PORT: add it.")
    if member >= settings.training.members:
        raise ConfigError(
            f"member = {member} is not allowed: members = {settings.training.members}, so it must be at most "
            f"{settings.training.members - 1}; lower it, or raise --members."
        )
    address = None if superlink is None else Address.parse(superlink)
    findings = []
    for finding in examine(
        settings, superlink=address, authority=root_certificates, member=member, model=onnx
    ):
        findings.append(finding)
        if not as_json:
            out.print(f"[{COLOURS[finding.level]}]{finding.level:8}[/]", end=" ")
            say(out, f"{finding.name}: {finding.detail}")
            if finding.advice:
                say(out, f"         -> {finding.advice}")
    count = {level: sum(each.level == level for each in findings) for level in COLOURS}
    if as_json:
        content = {"problems": count["problem"], "warnings": count["warning"]}
        print(json.dumps(content | {"findings": [each.as_json() for each in findings]}))
    else:
        out.print(_summary(count), highlight=False, soft_wrap=True)
        if address is None:
            out.print(
                "not checked: the SuperLink; give --superlink HOST:PORT", highlight=False, soft_wrap=True
            )
    if count["problem"]:
        raise typer.Exit(1)


def _summary(count: dict[str, int]) -> str:
    problems, warnings = count["problem"], count["warning"]
    if not problems and not warnings:
        return "all is well: this machine can join"
    parts = [
        f"{number} {name}{'' if number == 1 else 's'}"
        for number, name in ((problems, "problem"), (warnings, "warning"))
        if number
    ]
    return f"{' and '.join(parts)}: {'this machine cannot join yet' if problems else 'this machine can join'}"
