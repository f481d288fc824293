"""A real fleet on loopback whose processes look into a file for what is to happen to them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wash_fl.config import RunConfig
from wash_fl.deploy.launch import Fleet
from wash_fl.deploy.serving import serve
from wash_fl.faults import points
from wash_fl.faults.ledger import FolderLedger
from wash_fl.runs.folder import RunFolder

QUICK = Path(__file__).with_name("quick_heartbeats")

MEMBERS = 3

Act = Callable[[dict[str, Any]], None]


@dataclass
class Served:
    """A run on the fleet, and what happened meanwhile."""

    folder: RunFolder
    events: list[dict[str, Any]]
    restarts: list[str]
    injected: dict[str, int]

    @property
    def sha256(self) -> str:
        return str(self.folder.summary()["weights_sha256"])

    @property
    def participants(self) -> list[list[int]]:
        return [event["participants"] for event in self.events if event["event"] == "round"]


@dataclass
class Rig:
    """A fleet whose processes look into a file for what is to happen to them."""

    root: Path
    options: dict[str, Any]
    quick: bool = True
    """Whether Flower notices within seconds that a process is gone."""
    fleet: Fleet = field(init=False)

    @property
    def plan(self) -> Path:
        return self.root / "plan"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger"

    @property
    def environment(self) -> dict[str, str]:
        faults = {points.PLAN: f"@{self.plan}", points.FOLDER: str(self.ledger)}
        return faults | ({"PYTHONPATH": str(QUICK)} if self.quick else {})

    @property
    def states(self) -> list[Path]:
        return [self.fleet.parts.state(member) for member in range(MEMBERS)]

    def config(self, name: str, **options: Any) -> RunConfig:
        where = {"run-dir": str(self.root / "runs"), "run-name": name}
        return RunConfig.from_mapping({**self.options, **options, **where})

    def serve(
        self, name: str, plan: str = "", act: Act = lambda event: None, options: dict[str, Any] | None = None
    ) -> Served:
        """Do a run under a plan of faults; ``act`` is told of its events."""
        for injected in self.ledger.glob("*"):
            injected.unlink()
        self.plan.write_text(plan)
        events: list[dict[str, Any]] = []
        said: list[str] = []

        def on_event(event: dict[str, Any]) -> None:
            events.append(event)
            act(event)

        folder = serve(self.config(name, **options or {}), self.fleet.control, on_event, say=said.append)
        return Served(
            folder,
            events,
            [line for line in said if "submitting it again" in line],
            FolderLedger(self.ledger).count(),
        )
