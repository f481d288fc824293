"""A real fleet over slow links: recipes beside Flower's FedAvg, with the same model, steps and members."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from wash_fl.config import RunConfig
from wash_fl.deploy.launch import Fleet
from wash_fl.deploy.shipping import app_folder
from wash_fl.errors import ConfigError
from wash_fl.lab.bench.link_figures import beside_fedavg, row_of
from wash_fl.lab.bench.link_runs import METHODS, app_bytes, run_over
from wash_fl.lab.machine import folder_in_memory
from wash_fl.lab.network.link import Link
from wash_fl.lab.network.network import Network

START_SECONDS: Final = 600.0
"""How long a run waits for its clients: over the slowest links the app alone takes minutes."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured.

    Attributes
    ----------
    kbit : tuple of float
        Kilobits per second of each device's link, both ways; 0 is no limit.
    delay_ms : float
        One way.
    loss : float
        Part of the packets, 0 to 1.
    methods : tuple of str
        ``fedavg``, and names of recipes.
    members : int
        Devices.
    task, model, division : str
        As for a run.
    rounds, local_steps : int
        As for a run.
    accuracy : float
        To be reached, 0 to 1.
    limit : float
        Seconds after which a run is stopped.
    seed : int
        The runs'.
    """

    kbit: tuple[float, ...] = (256.0, 1000.0, 10000.0)
    delay_ms: float = 30.0
    loss: float = 0.0
    methods: tuple[str, ...] = ("fedavg", "frugal", "wash", "pairs")
    members: int = 2
    task: str = "digits"
    model: str = "resnet20"
    division: str = "shared"
    rounds: int = 6
    local_steps: int = 24
    accuracy: float = 0.9
    limit: float = 900.0
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [each for each in self.methods if each not in METHODS]
        if unknown or not self.methods:
            raise ConfigError(f"methods = {','.join(unknown) or 'none'}: choose of {', '.join(METHODS)}.")
        if self.rounds < 2:
            raise ConfigError(f"rounds = {self.rounds}: take at least 2, for the first brings the app.")
        if not 0 < self.accuracy <= 1:
            raise ConfigError(f"accuracy = {self.accuracy:g}: it must be above 0, and at most 1.")
        self.links()
        self.config("fedavg", "run", Path())

    def links(self) -> list[Link]:
        """Return the links, in the order in which they are measured."""
        return [Link(kbit=each, delay_ms=self.delay_ms, loss=self.loss) for each in self.kbit]

    def config(self, method: str, name: str, runs: Path) -> RunConfig:
        """Return the options of a run by a method."""
        return RunConfig.from_mapping(
            {
                "task": self.task,
                "model": self.model,
                "division": self.division,
                "members": self.members,
                "rounds": self.rounds,
                "local-steps": self.local_steps,
                "seed": self.seed,
                "recipe": "none" if method == "fedavg" else method,
                # So that it is seen when it is good enough; the answer is one number in a reply.
                "evaluate-every": 1,
                "start-timeout": START_SECONDS,
                "min-members": self.members,
                "run-dir": str(runs),
                "run-name": name,
            }
        )


def run(settings: Settings, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure.

    A SuperLink and its SuperNodes, with TLS and keys, each in a network namespace of its own; between them
    links of a rate and a delay. Each run is submitted to them, method after method, link after link.

    Parameters
    ----------
    settings : Settings
        What is measured.
    progress : callable
        Gets a line after each run.

    Returns
    -------
    dict
        All of the settings; ``links``, how they are made (``netem`` or ``tun``); ``app_bytes``; ``rows``, as
        :func:`~wash_fl.lab.bench.link_figures.row_of` has them, with ``kbit`` and ``method``; and
        ``beside_fedavg``.

    Raises
    ------
    RunError
        If there can be no such links here, or no fleet.
    """
    rows: list[dict[str, Any]] = []
    app = app_bytes(app_folder())
    with (
        # In memory if possible: links are measured here, and no disk.
        tempfile.TemporaryDirectory(prefix="wash-link-", dir=folder_in_memory()) as name,
        Network(settings.members) as network,
        network.on_server(),
    ):
        root = Path(name)
        with Fleet.up(root / "fleet", settings.members, hosts=network.hosts) as fleet:
            for link in settings.links():
                network.change(link)
                for method in settings.methods:
                    run_name = f"{method}-{link.kbit:g}"
                    config = settings.config(method, run_name, root / "runs")
                    timeline = run_over(network, fleet, method, config, limit=settings.limit, home=root)
                    row = row_of(timeline, members=settings.members, target=settings.accuracy, app=app)
                    rows.append({"kbit": link.kbit, "method": method} | row)
                    progress(_line(rows[-1]))
                    if timeline.failure:
                        # A node that is still at work on it would not take the next run's messages.
                        network.change(Link())
                        for member in range(settings.members):
                            fleet.start_node(member)
                        network.change(link)
        kind = network.kind
    return {
        **asdict(settings),
        "links": kind,
        "app_bytes": app,
        "rows": rows,
        "beside_fedavg": beside_fedavg(rows),
    }


def _line(row: dict[str, Any]) -> str:
    seconds = row["seconds_per_round"]
    each = "no round" if seconds is None else f"{seconds:.1f} s a round"
    return f"{row['kbit']:g} kbit/s, {row['method']}: {each}, {row['seconds']:.0f} s in all{_failure(row)}"


def _failure(row: dict[str, Any]) -> str:
    return f"; {row['failure']}" if row["failure"] else ""
