"""A part of a fleet and Flower's launcher, which starts its apps: a launcher that dies is started again.

Flower's SuperLink and SuperNode start ``flower-superexec`` once, and never look whether it still runs.
Without it no ServerApp and no ClientApp is started, and nobody says so. This program starts the part, and

- for a SuperLink, starts the launcher again: the nodes stay connected;
- for a SuperNode, starts the SuperNode again: it would wait for good for the answer of the ClientApp that
  died with its launcher, and take no other message;
- when the part itself ends, ends with its exit status: who started it decides what then.

Of a SuperNode's ClientApps it lets one be at work at a time (:mod:`wash_fl.deploy.one_clientapp`)::

    python -P -m wash_fl.deploy.supervisor flower-supernode --superlink ...

It imports neither torch nor Flower. On a system that does not list its processes in ``/proc`` it only starts
the part.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from wash_fl.system.children import are_listed, catches, children
from wash_fl.system.interrupts import interruptible

SUPERLINK: Final = "flower-superlink"
SUPERNODE: Final = "flower-supernode"
LAUNCHER: Final = "flower-superexec"

LOOK_SECONDS: Final = 1.0
FIRST_SECONDS: Final = 600.0
"""How long a part may take until it has started its launcher: minutes, on a machine that is starved."""

AGAIN_SECONDS: Final = 150.0
"""How long a SuperNode may take to be let in again: one that was killed is missed after a minute."""

ENDING_SECONDS, STOP_SECONDS = 5.0, 20.0
COMES_BACK_SECONDS: Final = 3.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

USAGE: Final = 2


class Supervisor:
    """A part of a fleet, and its launcher.

    Parameters
    ----------
    command : sequence of str
        Starts the part: a SuperLink or a SuperNode of Flower's, and its options.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._is_node = Path(command[0]).name == SUPERNODE
        # With isolation by process the launcher is somebody else's.
        self._has_launcher = are_listed() and not _isolates_by_process(command)
        self._part: subprocess.Popen[bytes] | None = None
        self._launcher: subprocess.Popen[bytes] | None = None
        self._launcher_command: list[str] = []
        self._seen_at = 0.0
        self._missing = 0
        self._healed_at: float | None = None
        self._pause = FIRST_PAUSE

    def run(self) -> int:
        """Start the part, look after it until it ends, and return its exit status."""
        try:
            with interruptible():
                self._start()
                return self._look_after()
        except KeyboardInterrupt:
            return 0
        except OSError as error:
            _say(f"error: cannot start {self._command[0]} ({error.strerror}): install the extra client.")
            return USAGE
        finally:
            self._stop()

    def _start(self) -> None:
        # An app that a kill left half unpacked Flower would take for whole; it unpacks it again.
        shutil.rmtree(home() / "apps", ignore_errors=True)
        environment = dict(os.environ)
        if self._is_node and os.name == "posix":
            environment["PATH"] = one_at_a_time(home()) + os.pathsep + environment.get("PATH", "")
        self._part = subprocess.Popen(self._command, env=environment)
        self._launcher_command, self._seen_at = [], time.monotonic()

    def _look_after(self) -> int:
        while (status := self._status()) is None or self._may_come_back():
            if status is not None:
                _say(f"{_name(self._command[0])} ended with status {status}, and is started again")
                time.sleep(COMES_BACK_SECONDS)
                self._start()
            elif self._has_launcher:
                # Twice: at a single look one part of what is being stopped may be gone before the other.
                self._missing = 0 if self._sees_launcher() else self._missing + 1
                if self._missing > 1:
                    self._heal()
        return status

    def _status(self) -> int | None:
        """Return the part's exit status a moment later; None if it runs."""
        assert self._part is not None
        # Not wait(timeout), which looks twenty times a second.
        time.sleep(LOOK_SECONDS)
        return self._part.poll()

    def _may_come_back(self) -> bool:
        """Return whether a SuperNode that was started again may not be let in yet."""
        return (
            self._is_node
            and self._healed_at is not None
            and time.monotonic() - self._healed_at < AGAIN_SECONDS
        )

    def _sees_launcher(self) -> bool:
        """Return whether the launcher runs, as far as can be said; and keep how it was started."""
        assert self._part is not None
        now = time.monotonic()
        if self._launcher is not None and self._launcher.poll() is None:
            self._seen_at = now
            return True
        for _, command in children(self._part.pid):
            if LAUNCHER in map(_name, command[:2]):
                self._launcher_command, self._seen_at = command, now
                return True
        return not self._launcher_command and now - self._seen_at < FIRST_SECONDS

    def _heal(self) -> None:
        """Bring the launcher back."""
        self._missing = 0
        now = time.monotonic()
        if self._healed_at is not None:
            # One that dies at once, again and again, is not started all the time.
            quick = now - self._healed_at < 2.0 * LONGEST_PAUSE
            self._pause = min(2.0 * self._pause, LONGEST_PAUSE) if quick else FIRST_PAUSE
            time.sleep(self._pause if quick else 0.0)
        self._healed_at = time.monotonic()
        if self._is_node or not self._launcher_command:
            _say(f"{LAUNCHER}, which starts the apps, has died: {_name(self._command[0])} is started again")
            self._stop()
            self._start()
        else:
            _say(f"{LAUNCHER}, which starts the apps, has died: it is started again")
            self._launcher = subprocess.Popen(self._launcher_command, start_new_session=True)
            self._seen_at = time.monotonic()

    def _stop(self) -> None:
        """Stop the part, and what it has started with it."""
        part, launcher = self._part, self._launcher
        if part is not None and part.poll() is None:
            # Flower ends at once, without its leave of the SuperLink, if it is asked a second time; and who
            # stops a service or a fleet asks all of its processes. One that was asked catches it no more.
            if catches(part.pid, signal.SIGTERM) or not self._launcher_command:
                part.terminate()
            with suppress(subprocess.TimeoutExpired):
                part.wait(STOP_SECONDS)
            part.kill()
            part.wait()
        if launcher is not None:
            # It also ends by itself when its SuperLink does.
            launcher.terminate()
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(ENDING_SECONDS)
            launcher.kill()
            launcher.wait()
            self._launcher = None


def home() -> Path:
    """Return Flower's own folder."""
    return Path(os.environ.get("FLWR_HOME") or "~/.flwr").expanduser()


def one_at_a_time(folder: Path) -> str:
    """Return a folder for PATH in which the launcher finds a ClientApp that waits for its turn.

    Parameters
    ----------
    folder : Path
        Of this SuperNode alone.
    """
    place = folder / "one-clientapp"
    place.mkdir(parents=True, exist_ok=True)
    tools = Path(sys.executable).parent
    program = Path(__file__).with_name("one_clientapp.py")
    words = [sys.executable, "-I", "-S", str(program), str(place), str(tools / "flwr-clientapp")]
    script = place / "flwr-clientapp"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return str(place)


def _isolates_by_process(command: Sequence[str]) -> bool:
    words = " ".join(command).replace("=", " ")
    return "--isolation process" in words


def _name(word: str) -> str:
    return Path(word).name


def _say(words: str) -> None:
    print(f"wash_fl: {words}", file=sys.stderr, flush=True)


def main(command: Sequence[str]) -> int:
    """Look after the part that a command starts, and return the exit status."""
    if not command or _name(command[0]) not in (SUPERLINK, SUPERNODE):
        _say(
            f"error: {shlex.join(command) or 'no command'} starts no part of a fleet: give {SUPERLINK} or "
            f"{SUPERNODE} and its options."
        )
        return USAGE
    # Installed beside this interpreter, as the rest of Flower.
    tools = Path(sys.executable).parent
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"
    # A path stays what it is.
    start = str(tools / command[0]) if _name(command[0]) == command[0] else command[0]
    return Supervisor([start, *command[1:]]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
