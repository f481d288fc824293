"""What is asked of a SuperLink from outside, through Flower's own command line: keys, runs, nodes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wash_fl.deploy import processes
from wash_fl.deploy.node_keys import check_public_key
from wash_fl.errors import RunError

ANSWER_SECONDS = 60.0
"""How long a question to a SuperLink may take."""

_KEY_KNOWN = "[code: 23]"
_STARTED = re.compile(rb"Successfully started run (\d+)")


@dataclass(frozen=True)
class RunStatus:
    """How a Flower run is doing.

    Attributes
    ----------
    status : str
        In Flower's words: ``pending``, ``starting``, ``running``, ``finished:completed``,
        ``finished:failed`` or ``finished:stopped``.
    details : str
        Why it ended so, in Flower's words.
    """

    status: str
    details: str


@dataclass(frozen=True)
class Control:
    """A SuperLink as Flower's command line sees it.

    Attributes
    ----------
    connection : str
        Its name in ``$FLWR_HOME/config.toml``; empty is the default one there.
    environment : mapping of str to str
        For Flower's command line.
    """

    connection: str
    environment: Mapping[str, str]

    @classmethod
    def named(cls, connection: str) -> "Control":
        """Return the SuperLink of that name in the user's own configuration of Flower."""
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        return cls(connection, quiet | os.environ | processes.SPEAK_UTF8)

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"the SuperLink {self.connection!r}" if self.connection else "the default SuperLink"

    def register(self, key: Path) -> str | None:
        """Make a SuperNode's public key known.

        Returns
        -------
        str or None
            The node's id; None if the key was known before.

        Raises
        ------
        CredentialsError
            If the file is not such a key.
        RunError
            If the SuperLink does not answer, or refuses.
        """
        check_public_key(key)
        try:
            return str(self._ask("supernode", "register", str(key))["node-id"])
        except RunError as error:
            if _KEY_KNOWN in str(error):
                return None
            raise

    def online(self) -> set[str]:
        """Return the ids of the nodes that the SuperLink holds for connected.

        One that was killed counts for up to a minute longer.
        """
        nodes = self._ask("supernode", "list")["nodes"]
        return {str(node["node-id"]) for node in nodes if node["status"] == "online"}

    def status(self, run: int) -> RunStatus:
        """Return how a Flower run is doing.

        Raises
        ------
        RunError
            If the SuperLink does not answer, or does not know the run.
        """
        entry = self._ask("list", "--run-id", str(run))["runs"][0]
        return RunStatus(str(entry["status"]), str(entry["status-details"]))

    def stop(self, run: int) -> None:
        """End a Flower run.

        Raises
        ------
        RunError
            If the SuperLink does not answer, or the run has ended.
        """
        self._ask("stop", str(run))

    def submit(self, app: Path, options: Path, log: Path) -> "subprocess.Popen[bytes]":
        """Start a Flower run; the process returned copies its log to ``log`` and ends with it."""
        command = ["flwr", "run", str(app), *self._place(), "--stream", "--run-config", str(options)]
        return processes.start(command, self.environment, log)

    def _place(self) -> list[str]:
        return [self.connection] if self.connection else []

    def _ask(self, *question: str) -> dict[str, Any]:
        command = ["flwr", *question, *self._place(), "--format", "json"]
        try:
            process = subprocess.run(
                [str(Path(sys.executable).with_name(command[0])), *command[1:]],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=ANSWER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(f"{self.name} did not answer within {ANSWER_SECONDS:g} s.") from error
        try:
            # Warnings may stand before the object.
            answer: dict[str, Any] = json.loads(process.stdout[process.stdout.index("{") :])
        except ValueError:
            answer = {"success": False, "error-message": process.stdout + process.stderr}
        if not answer.get("success"):
            raise RunError(f"{self.name} refuses `flwr {' '.join(question)}`: {_reason(answer)}.")
        return answer


def started_run(log: Path, after: int = 0) -> int | None:
    """Return the id of the Flower run that ``flwr run`` said it started, or None.

    Parameters
    ----------
    log : Path
        What it said.
    after : int
        Bytes at the beginning of the log that an earlier one said.
    """
    with log.open("rb") as file:
        file.seek(after)
        match = _STARTED.search(file.read())
    return int(match[1]) if match else None


def _reason(answer: dict[str, Any]) -> str:
    """Return the last paragraph of Flower's message, on one line."""
    paragraphs = [" ".join(each.split()) for each in str(answer.get("error-message", "")).split("\n\n")]
    reasons = [each for each in paragraphs if each and not each.startswith("For more information")]
    return reasons[-1].rstrip(".") if reasons else "it did not say why"
