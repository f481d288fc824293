"""A run on a real fleet: submit it to the SuperLink, follow it, submit it again if its server's part dies."""

import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wash_fl.config import RunConfig
from wash_fl.deploy import processes
from wash_fl.deploy.control import Control, started_run
from wash_fl.deploy.launchers import LauncherWatch, Look
from wash_fl.deploy.shipping import app_folder, app_with_code
from wash_fl.deploy.submitting import (
    OnEvent,
    count_events,
    follow,
    keep_log,
    with_absolute_paths,
    write_options,
)
from wash_fl.errors import RunError
from wash_fl.runs.folder import LOG, SUMMARY, RunFolder
from wash_fl.system.interrupts import interruptible

WAIT_SECONDS = 300.0
"""How long a SuperLink that was there before may be away."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
END_SECONDS = 30.0

REMEDY = "restart the SuperLink (systemctl restart wash-fl-superlink, or its container)."

OVER = "finished"
"""How Flower's words begin for a run that has ended; one that it does not know is none to end, either."""

_RAISED = "ServerApp failed with exception: "

Say = Callable[[str], None]


class _SubmissionError(Exception):
    """The SuperLink took no run; it may in a while."""


@dataclass
class _Watch:
    """What is known of the run's server part: Flower's id of the run, and the ServerApp's process."""

    run: int
    pid: int | None = None

    def has_ended(self) -> bool:
        """Return whether the ServerApp is known to have ended."""
        import psutil

        if self.pid is None:
            return False
        try:
            return not processes.is_alive(psutil.Process(self.pid))
        except psutil.NoSuchProcess:
            return True

    def note(self, event: dict[str, Any]) -> None:
        """Take the ServerApp's process from an event, where it runs on this machine."""
        pid = event.get("pid")
        if isinstance(pid, int) and pid != self.pid:
            self.pid = pid
            if self.has_ended():  # of another machine, or in a container of its own: cannot be watched
                self.pid = None


def serve(
    config: RunConfig,
    control: Control,
    on_event: OnEvent,
    *,
    restarts: int = 5,
    ship_code: bool = False,
    say: Say = lambda line: None,
    look: Look = lambda: (),
    remedy: str = REMEDY,
) -> RunFolder:
    """Run the main job on the fleet of a SuperLink on this machine.

    If the server's part of the run ends before its job is done (the ServerApp is killed, the SuperLink dies),
    it is submitted again and goes on where it was. A run of the same name that did not finish goes on, too.

    Parameters
    ----------
    config : RunConfig
        The run's options; the run's folder must be one that the SuperLink's processes can write to.
    control : Control
        The SuperLink.
    on_event : callable
        Gets each event of the run's metrics file as it is written.
    restarts : int
        How many times the run is submitted again at most.
    ship_code : bool
        Whether the devices run this machine's wash_fl, which the app then brings, in place of theirs.
    say : callable
        Told of each new attempt, and of what is missing, in a line.
    look : callable
        Returns a sentence on each of Flower's launchers of this machine that does not run.
    remedy : str
        What to do if the SuperLink's does not.

    Returns
    -------
    RunFolder
        Of the finished run.

    Raises
    ------
    RunError
        If the SuperLink is not there, the run fails for a reason of its own, or is not done after the last
        attempt.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after the run is stopped; it can be resumed.
    """
    config = with_absolute_paths(config)
    with (
        tempfile.TemporaryDirectory(prefix="wash-") as home,
        interruptible(),
        RunFolder.claimed(config) as run,
    ):
        folder = run.path
        app = app_with_code(Path(home) / "app") if ship_code else app_folder()
        launchers = LauncherWatch(control, say, look, remedy)
        server = _Server(control, config, folder, Path(home), on_event, app=app, launchers=launchers)
        try:
            for attempt in range(restarts + 1):
                why = server.attempt() if attempt == 0 else server.attempt_patiently()
                if not why:
                    return RunFolder.open(folder)
                remaining = restarts - attempt
                say(
                    f"the server's part of the run has ended early: {why}"
                    + (f"; submitting it again ({attempt + 1} of {restarts})" if remaining else "")
                )
        except _SubmissionError as error:
            raise RunError(str(error)) from error
        finally:
            keep_log(Path(home) / LOG, folder)
    raise RunError(
        f"the run ended before its job was done (restarts: {restarts}): {why}. When the SuperLink is well, "
        f"go on with wash-fl serve --resume {folder} (Flower's log: {folder / LOG})."
    )


class _Server:
    """The server's part of one run, submitted as often as it takes."""

    def __init__(
        self,
        control: Control,
        config: RunConfig,
        folder: Path,
        home: Path,
        on_event: OnEvent,
        *,
        app: Path,
        launchers: LauncherWatch,
    ) -> None:
        self._control = control
        self._app = app
        self._launchers = launchers
        self._folder = folder
        self._log = home / LOG
        self._options = home / "run.toml"
        self._on_event = on_event
        self._unfinished: int | None = None
        write_options(config, self._options)

    def attempt_patiently(self) -> str:
        """Try while the SuperLink is away, for some minutes; see :meth:`attempt`."""
        deadline, pause = time.monotonic() + WAIT_SECONDS, FIRST_PAUSE
        while True:
            try:
                return self.attempt()
            except _SubmissionError:
                if time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause = min(2.0 * pause, LONGEST_PAUSE)

    def attempt(self) -> str:
        """Submit the run and follow it to its end.

        Returns
        -------
        str
            Why it ended before its job was done; empty if it is done.

        Raises
        ------
        RunError
            If it failed for a reason that another attempt would not change.
        """
        self._end_unfinished()
        before, log_size = count_events(self._folder), self._log.stat().st_size if self._log.exists() else 0
        stream = self._control.submit(self._app, self._options, self._log)
        watch: _Watch | None = None
        try:
            while watch is None:
                self._launchers.check()
                stream_ended = stream.poll() is not None
                run = started_run(self._log, log_size)
                if run is not None:
                    watch = _Watch(run)
                elif stream_ended:
                    words = processes.last_words(self._log, log_size)
                    raise _SubmissionError(f"{self._control.name} took no run: {words}.")
                else:
                    time.sleep(0.1)
            current = watch
            self._launchers.submitted(current.run)

            def has_ended() -> bool:
                self._launchers.check()
                return stream.poll() is not None or current.has_ended()

            for event in follow(self._folder, has_ended, before):
                self._launchers.started()
                current.note(event)
                self._on_event(event)
                if event["event"] == "finished":
                    with suppress(
                        subprocess.TimeoutExpired
                    ):  # let Flower end the run in its own way, for a while
                        stream.wait(processes.STOP_SECONDS)
                    return ""
            return self._why_ended(current)
        except KeyboardInterrupt:
            if watch is not None:
                self._end(watch)
            raise
        finally:
            if stream.poll() is None:
                stream.terminate()
                with suppress(subprocess.TimeoutExpired):
                    stream.wait(processes.STOP_SECONDS)

    def _why_ended(self, watch: _Watch) -> str:
        if (self._folder / SUMMARY).is_file():
            return ""  # died after all was written, and before it could say so
        try:
            run_status = self._control.status(watch.run)
        except RunError:
            self._unfinished = watch.run
            self._await_end(watch)
            return "the SuperLink does not answer"
        if run_status.status == "finished:failed" and run_status.details.startswith(_RAISED):
            reason = " ".join(run_status.details.removeprefix(_RAISED).split()).rstrip(".")
            raise RunError(f"the run failed: {reason} (Flower's log: {self._folder / LOG}).")
        if run_status.status == "finished:stopped":
            raise RunError(
                f"the run was stopped by `flwr stop`; to go on: wash-fl serve --resume {self._folder}."
            )
        if run_status.status == "finished:completed":
            raise RunError(
                f"Flower ran the job to its end, but not in {self._folder}: run `wash-fl serve` on the "
                "SuperLink's machine, with a run-dir that its processes see under the same path."
            )
        self._end(watch)
        return "the ServerApp was killed"

    def _end_unfinished(self) -> None:
        """End the run that was left when the SuperLink did not answer: it would start it beside the new one.

        Raises
        ------
        _SubmissionError
            If it does not answer yet.
        """
        if self._unfinished is None:
            return
        try:
            status = self._control.status(self._unfinished).status
        except (RunError, LookupError):
            # It does not know the run any more, or was only too slow: then the run is ended all the same.
            status = ""
            try:
                self._control.online()
            except RunError as error:
                raise _SubmissionError(f"{self._control.name} took no run: {error}") from error
        if not status.startswith(OVER):
            with suppress(RunError):
                self._control.stop(self._unfinished)
        self._unfinished = None

    def _end(self, watch: _Watch) -> None:
        """End the Flower run, so that two ServerApps never work on one run's folder."""
        with suppress(RunError):
            self._control.stop(watch.run)
        self._await_end(watch)

    def _await_end(self, watch: _Watch) -> None:
        if watch.pid is None:
            return
        deadline = time.monotonic() + END_SECONDS
        while not watch.has_ended():
            if time.monotonic() > deadline:
                raise RunError(
                    f"the ServerApp (process {watch.pid}) still runs, and two must not work on one run: end "
                    f"it, then go on with wash-fl serve --resume {self._folder}."
                )
            time.sleep(0.2)
