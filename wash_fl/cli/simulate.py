"""``wash-fl simulate``: the whole job on one machine."""

from typing import Any

import typer

from wash_fl.cli.check import refuse_bad_task
from wash_fl.cli.options import Config, settings_of, with_run_options
from wash_fl.cli.terminal import err, out
from wash_fl.errors import INTERRUPTED


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(with_run_options(simulate))


def simulate(
    options: dict[str, Any],
    config: Config = None,
) -> None:
    """Run the whole job on one machine: train, exchange, average, export to ONNX.

    Starts Flower's simulation engine with one client per member, and stops it again.
    """
    settings = settings_of(options, config)
    from wash_fl.deploy.simulation import simulate as run_simulation
    from wash_fl.deploy.submitting import with_absolute_paths
    from wash_fl.report.progress import Progress
    from wash_fl.runs.folder import RunFolder

    settings = with_absolute_paths(settings)
    RunFolder.check_free(settings)
    refuse_bad_task(settings)
    try:
        with Progress(out, settings.training.rounds) as progress:
            folder = run_simulation(settings, progress.show)
    except KeyboardInterrupt:
        err.print("interrupted: everything that was started is stopped.", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    progress.summarize(folder)
