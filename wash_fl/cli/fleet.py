"""The commands of a real fleet: credentials, a fleet on this machine for trying out, and runs on a fleet."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from wash_fl.cli.check import refuse_bad_task
from wash_fl.cli.options import Config, settings_of, with_run_options
from wash_fl.cli.terminal import Json, err, out, say
from wash_fl.errors import INTERRUPTED, ConfigError

if TYPE_CHECKING:
    from wash_fl.deploy.launch import Fleet

Folder = Annotated[Path, typer.Option("--dir", help="The folder of a fleet on this machine.")]
Out = Annotated[Path, typer.Option("--out", help="The folder in which the files are made.")]

FOLDER, CREDENTIALS = Path("fleet"), Path("credentials")

fleet = typer.Typer(
    name="fleet",
    help="Certificates and keys for a fleet of devices; and a whole fleet on this machine, for trying out.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(fleet)
    app.command()(with_run_options(serve))


def _say(line: str) -> None:
    # Not wrapped, so that paths stay whole.
    out.print(line, highlight=False, markup=False, soft_wrap=True)


def serve(
    *,
    options: dict[str, Any],
    fleet_dir: Annotated[
        Path | None, typer.Option("--fleet", help="The folder of a fleet on this machine, after `fleet up`.")
    ] = None,
    connection: Annotated[
        str | None, typer.Option("--connection", help="The SuperLink's name in Flower's own configuration.")
    ] = None,
    config: Config = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="The folder of a run that did not finish: go on with it.")
    ] = None,
    restarts: Annotated[
        int, typer.Option(min=0, help="How often the server's part is started again if it dies.")
    ] = 5,
    ship_code: Annotated[
        bool,
        typer.Option(
            "--ship-code",
            help="Send this machine's wash_fl along, 1.4 MB, for devices with another one; without its data.",
        ),
    ] = False,
) -> None:
    """Run the whole job on a fleet: train on its devices, exchange, average, export to ONNX.

    Type it on the SuperLink's machine. A run that was cut short goes on where it was.
    """
    from wash_fl.deploy.control import Control
    from wash_fl.deploy.launch import Fleet
    from wash_fl.deploy.serving import REMEDY
    from wash_fl.deploy.serving import serve as run_on_fleet
    from wash_fl.deploy.submitting import with_absolute_paths
    from wash_fl.report.progress import Progress
    from wash_fl.runs.folder import CONFIG, RunFolder

    if (fleet_dir is None) == (connection is None):
        raise ConfigError("give one of --fleet DIR (after `wash-fl fleet up`) and --connection NAME.")
    if resume is not None and config is not None:
        raise ConfigError("--resume takes the options of its run: leave --config out.")
    if resume is not None:
        options = _options_of(resume) | options
    if fleet_dir is not None:
        local = Fleet.open(fleet_dir)
        if not local.pids():
            raise ConfigError(f"the fleet in {fleet_dir} does not run: wash-fl fleet up --dir {fleet_dir}.")
        control, size = local.control, local.description.members
        look = partial(_missing_of, local)
        remedy = f"wash-fl fleet restart superlink --dir {local.folder}"
        if config is None:
            options.setdefault("members", size)
    else:
        control, size = Control.named(str(connection)), None
        look, remedy = partial(list[str]), REMEDY
    settings = settings_of(options, config)
    if size is not None and settings.training.members > size:
        raise ConfigError(
            f"members = {settings.training.members} is more than the {size} nodes of the fleet in "
            f"{fleet_dir}: lower members, or start a larger fleet."
        )
    settings = with_absolute_paths(settings)
    RunFolder.check_free(settings)
    refuse_bad_task(settings)
    try:
        with Progress(out, settings.training.rounds, "submitting the run") as progress:
            folder = run_on_fleet(
                settings,
                control,
                progress.show,
                restarts=restarts,
                ship_code=ship_code,
                say=_say,
                look=look,
                remedy=remedy,
            )
    except KeyboardInterrupt:
        place = f"--fleet {fleet_dir}" if fleet_dir is not None else f"--connection {connection}"
        run = Path(settings.fleet.run_dir) / settings.fleet.run_name
        message = "interrupted: the run is stopped."
        if (run / CONFIG).exists():
            message += f" To go on with it: wash-fl serve {place} --resume {run}"
        say(err, message)
        raise typer.Exit(INTERRUPTED) from None
    progress.summarize(folder)


def _missing_of(local: "Fleet") -> list[str]:
    """Return a sentence on each launcher of a fleet that does not run."""
    from wash_fl.deploy.launchers import what_is_missing

    return what_is_missing(local.pids(), local.folder)


def _options_of(run: Path) -> dict[str, Any]:
    """Return the options of a run, and where it is."""
    from wash_fl.runs.folder import RunFolder

    run = run.expanduser().resolve()
    options = RunFolder.open(run).config.to_mapping()
    places = {"run-dir": str(run.parent), "run-name": run.name}
    return {name.replace("-", "_"): value for name, value in (options | places).items()}


@fleet.command()
def certificates(
    host: Annotated[
        list[str], typer.Option("--host", help="DNS name or IP address of the server; may be given again.")
    ],
    folder: Out = CREDENTIALS,
) -> None:
    """Make the server's certificate, and an authority to sign it if there is none.

    ca.crt goes to every device; server.pem and server.key belong on the server; ca.key signs the next
    certificate and is needed nowhere else.
    """
    from wash_fl.deploy.certificates import make_authority, make_server_certificate

    authority = make_authority(folder)
    server = make_server_certificate(folder, host)
    _say(f"{authority.path}: valid until {authority.until:%Y-%m-%d}; it goes to every device")
    _say(f"{server.path}: for {', '.join(server.hosts)}; valid until {server.until:%Y-%m-%d}")


@fleet.command()
def key(
    name: Annotated[str, typer.Argument(help="The device's name, which becomes the file's.")],
    folder: Out = CREDENTIALS,
) -> None:
    """Make the key by which the server knows a device.

    NAME is the device's name, which becomes the file's.
    """
    from wash_fl.deploy.node_keys import make_node_key

    private, public = make_node_key(folder, name)
    _say(f"{private}: the private key, which stays on the device")
    _say(f"{public}: on the server, wash-fl fleet register {public.name}")


@fleet.command("register")
def register_key(
    public: Annotated[Path, typer.Argument(metavar="KEY.pub", help="A device's public key.")],
    connection: Annotated[
        str,
        typer.Option(help="The SuperLink's name in Flower's own configuration; empty is the default one."),
    ] = "",
) -> None:
    """Let a device into the fleet: make its public key known to the SuperLink.

    KEY.pub is a device's public key.
    """
    from wash_fl.deploy.control import Control

    node = Control.named(connection).register(public)
    _say(f"{public}: registered as node {node}" if node else f"{public}: was registered before")


@fleet.command()
def up(
    members: Annotated[
        int | None, typer.Option(help="How many nodes; 3 for a new fleet.", show_default=False)
    ] = None,
    folder: Folder = FOLDER,
    port: Annotated[
        int | None,
        typer.Option(help="Where the SuperLink listens; by default a free port.", show_default=False),
    ] = None,
) -> None:
    """Start a fleet on this machine: SuperLink and nodes, with TLS and node authentication.

    It runs on until `wash-fl fleet down`. A fleet that was stopped starts again with what it had.
    """
    from wash_fl.deploy.launch import Fleet

    try:
        own_fleet = Fleet.up(folder, members, port=port, say=_say)
    except KeyboardInterrupt:
        err.print("interrupted: everything that was started is stopped.", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    _say(
        f"{own_fleet.description.members} nodes are connected; try: wash-fl serve --fleet {folder} --rounds 5"
    )


@fleet.command()
def status(folder: Folder = FOLDER, as_json: Json = False) -> None:
    """Show which processes of a fleet on this machine run."""
    from wash_fl.deploy.launch import Fleet
    from wash_fl.deploy.launchers import missing_launchers, what_is_missing
    from wash_fl.errors import RunError

    own_fleet = Fleet.open(folder)
    pids = own_fleet.pids()
    online: set[str] | None = None
    if "superlink" in pids:
        try:
            online = own_fleet.control.online()
        except RunError as error:
            say(err, str(error))
    nodes = [
        {
            "member": member,
            "node": node,
            "running": f"supernode {member}" in pids,
            "connected": None if online is None else node in online,
        }
        for member, node in enumerate(own_fleet.description.nodes)
    ]
    certificate = own_fleet.certificate
    if as_json:
        content = {
            "folder": str(own_fleet.folder),
            "address": own_fleet.address,
            "members": own_fleet.description.members,
            "running": bool(pids),
            "nodes": nodes,
            "processes": pids,
            "missing": missing_launchers(pids),
            "certificate_until": certificate.until.isoformat(),
        }
        print(json.dumps(content))
        return
    if not pids:
        _say(f"nothing of the fleet in {own_fleet.folder} runs")
        return
    table = Table("part", "processes", "connected")
    expected = ["superlink", *(f"supernode {member}" for member in range(own_fleet.description.members))]
    for role in sorted({*pids, *expected, *missing_launchers(pids)}):
        kind, _, member = role.partition(" ")
        connected = ""
        if kind == "supernode" and online is not None and int(member) < len(nodes):
            connected = "yes" if nodes[int(member)]["connected"] else "no"
        table.add_row(role, ", ".join(map(str, pids.get(role, ()))) or "does not run", connected)
    out.print(table)
    for sentence in what_is_missing(pids, own_fleet.folder):
        _say(sentence)
    _say(f"SuperLink: {own_fleet.address}; its certificate is valid until {certificate.until:%Y-%m-%d}")


@fleet.command()
def down(folder: Folder = FOLDER) -> None:
    """Stop a fleet on this machine: exactly what came of it, and nothing else. Its files stay."""
    from wash_fl.deploy.launch import Fleet

    count = Fleet.open(folder).down()
    _say(f"stopped {count} processes" if count else f"nothing of the fleet in {folder} runs")


@fleet.command()
def restart(
    part: Annotated[str, typer.Argument(help="superlink, or the number of a node.")],
    folder: Folder = FOLDER,
) -> None:
    """Start a part of a running fleet on this machine again, whether it has died or not.

    PART is superlink, or the number of a node.
    """
    from wash_fl.deploy.launch import Fleet

    own_fleet = Fleet.open(folder)
    if not own_fleet.pids():
        raise ConfigError(f"the fleet in {folder} does not run: wash-fl fleet up --dir {folder}.")
    if part == "superlink":
        own_fleet.restart_superlink()
    elif part.isdecimal():
        own_fleet.start_node(int(part), _say)
    else:
        raise ConfigError(f"there is no part {part!r}: give superlink, or the number of a node.")
    _say(f"{'the SuperLink' if part == 'superlink' else f'node {part}'} runs again")
