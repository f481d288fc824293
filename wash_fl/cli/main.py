"""The command line as a program: its commands, and what an error of theirs comes to."""

import os
import sys
from importlib import import_module
from typing import Annotated, Final

import click
import typer

import wash_fl
from wash_fl.cli.terminal import out, print_anything, say_error, usage_message
from wash_fl.errors import INTERRUPTED, WashError
from wash_fl.extras import extra_for, install_hint
from wash_fl.system.interrupts import interruptible

COMMANDS: Final = (
    "wash_fl.cli.simulate",
    "wash_fl.cli.recipes",
    "wash_fl.cli.evaluate",
    "wash_fl.cli.report",
    "wash_fl.cli.audit",
    "wash_fl.cli.check",
    "wash_fl.cli.export",
    "wash_fl.cli.predict",
    "wash_fl.cli.fleet",
    "wash_fl.cli.doctor",
    "wash_fl.lab.compare.commands",
    "wash_fl.lab.bench.commands",
)
"""What has commands, as their help lists them. By name, for nothing imports the laboratory."""

app = typer.Typer(
    name="wash-fl",
    help="Train an ensemble on a fleet of edge devices, ship it as one small model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; an error of ours is one line and a status other than 0."""
    print_anything()
    try:
        # Whatever ends a command, it ends what it has started first.
        with interruptible():
            status = app(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        say_error(usage_message(error))
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except WashError as error:
        say_error(str(error))
        sys.exit(1)
    except UnicodeEncodeError as error:
        say_error(
            f"cannot write {error.object[error.start : error.end]!r} as {error.encoding}: use names that are "
            "UTF-8 text, and set LC_ALL=C.UTF-8 or PYTHONUTF8=1 where the terminal's locale is another."
        )
        sys.exit(1)
    except OSError as error:
        say_error(f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}.")
        _leave_no_output()
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = extra_for(error.name or "", " ".join(sys.argv[1:3]))
        if extra is None:
            raise
        say_error(
            f"this command needs the package {error.name}, which is not installed: {install_hint(extra)}."
        )
        sys.exit(1)


def _leave_no_output() -> None:
    """Throw away what cannot be written, or Python would try again at its end, and change the status."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        out.print(wash_fl.__version__)
        raise typer.Exit


for _each in COMMANDS:
    import_module(_each).register(app)
