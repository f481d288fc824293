"""Whether Flower's launcher runs, which starts ServerApps and ClientApps: a run waits for it in silence."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from wash_fl.clock import Clock
from wash_fl.deploy.control import Control
from wash_fl.deploy.parts import LAUNCHER, SUPERLINK, SUPERNODE, SUPERVISES, Say
from wash_fl.errors import RunError

LOOK_SECONDS: Final = 5.0
"""How often is looked; said is what is missing twice, and nothing of one that is being started."""

PENDING_SECONDS: Final = 10.0
"""How long a run may wait for its ServerApp before Flower is asked what became of it."""

PENDING: Final = "pending"
"""What Flower calls a run that no launcher has taken."""

Look = Callable[[], Sequence[str]]


def missing_launchers(by_role: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the roles of the launchers that do not run though their part does.

    Parameters
    ----------
    by_role : mapping of str to sequence of int
        What runs, as ``Fleet.pids`` returns it.
    """
    missing = []
    for role in by_role:
        part, _, member = role.partition(" ")
        launcher = f"{LAUNCHER} {member}".strip()
        if part in (SUPERLINK, SUPERNODE) and launcher not in by_role:
            missing.append(launcher)
    return missing


def what_is_missing(by_role: Mapping[str, Sequence[int]], folder: Path) -> list[str]:
    """Return a sentence on each launcher of a fleet that does not run, with what to do.

    Parameters
    ----------
    by_role : mapping of str to sequence of int
        What runs, as ``Fleet.pids`` returns it.
    folder : Path
        The fleet's.
    """
    sentences = []
    for launcher in missing_launchers(by_role):
        member = launcher.partition(" ")[2]
        whose, part = (f"node {member}'s", member) if member else ("the server's", SUPERLINK)
        supervised = f"{SUPERVISES} {member}".strip() in by_role
        remedy = "it is being started again" if supervised else f"wash-fl fleet restart {part} --dir {folder}"
        sentences.append(
            f"{whose} launcher (flower-superexec), which starts its apps, does not run: {remedy}"
        )
    return sentences


class LauncherWatch:
    """Says what is missing where a run waits because nothing starts its apps.

    Parameters
    ----------
    control : Control
        The SuperLink.
    say : callable
        Gets a line.
    look : callable
        Returns a sentence on each launcher of this machine that does not run.
    remedy : str
        What to do about the SuperLink's, where that is all that is known.
    clock : Clock
        What the waiting is measured by.
    """

    def __init__(
        self, control: Control, say: Say, look: Look, remedy: str, clock: Clock | None = None
    ) -> None:
        self._control = control
        self._say = say
        self._look = look
        self._remedy = remedy
        self._clock = clock or Clock()
        self._next_look = self._clock.now()
        self._missing: set[str] = set()
        self._on_record: set[str] = set()
        self._run: int | None = None
        self._next_question = 0.0

    def submitted(self, run: int) -> None:
        """Take note that a run waits for its ServerApp from now on."""
        self._run, self._next_question = run, self._clock.now() + PENDING_SECONDS

    def started(self) -> None:
        """Take note that the run's ServerApp has begun."""
        self._run = None

    def check(self) -> None:
        """Look, now and then, and say what is missing, once."""
        now = self._clock.now()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            missing = set(self._look())
            self._report(sorted(missing & self._missing))
            self._missing = missing
            self._on_record &= missing
        if self._run is not None and now >= self._next_question:
            self._next_question = now + PENDING_SECONDS
            # Where processes have been seen to be missing, no more is known by asking.
            if not self._missing and self._is_pending(self._run):
                self._run = None
                self._say(
                    f"{self._control.name} has the run and does not start it: its launcher "
                    f"(flower-superexec), which starts ServerApps, does not run: {self._remedy}"
                )

    def _report(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            if sentence not in self._on_record:
                self._on_record.add(sentence)
                self._say(sentence)

    def _is_pending(self, run: int) -> bool:
        with suppress(RunError):
            return self._control.status(run).status == PENDING
        return False
