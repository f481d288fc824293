"""Stands for Flower's ``flwr-clientapp``: it keeps the task, waits for its turn, and becomes the ClientApp.

Flower 1.42 starts one more ClientApp for a message whenever the last one has sent no sign of life within
30 seconds of being started. Where a start takes longer, as on a Raspberry Pi that is busy, each of them makes
the others slower, so that none is ever in time. Therefore

- a small process sends that sign of life from the first moment on, for as long as the ClientApp lives;
- one ClientApp is at work on a device, and one more waits for it to end, before it loads anything. A further
  one ends at once. Its message is not lost: Flower starts a ClientApp for it again.

This is a program of its own, which needs the standard library alone: nothing is imported that takes time.
The supervisor has Flower find it in place of its own::

    python -I -S one_clientapp.py FOLDER FLWR_CLIENTAPP ARGUMENTS...
"""

import fcntl
import math
import os
import sys
import time
from pathlib import Path

BEAT_SECONDS = 5.0
"""Flower waits 30 s for the first sign of life, and 60 s for each of the others."""

LOOK_SECONDS = 0.25
LEAVING_SECONDS = 10.0
"""A ClientApp takes a moment to end after its answer: nothing is said of so short a wait."""

BUSY = 75
"""Exit status of a ClientApp that was one too many: the system's own number for "try again later"."""

PATH = "/v1/runtime/send-task-heartbeat"
SUCCESS = b"\x08\x01"
"""Flower's answer, in protobuf, if the task is still this ClientApp's."""


def main(folder: Path, command: list[str]) -> None:
    """Become ``command`` when it is its turn, with a small process beside it that keeps its task."""
    keeper = None
    token, address = _option(command, "--token"), _option(command, "--runtime-api-address")
    if token and address:
        this = os.getpid()
        keeper = os.fork()
        if keeper == 0:
            _keep(address, token, _option(command, "--root-certificates"), this)
            os._exit(0)
    # Nodes that share a folder differ in where they are reached.
    turn = _take_turn(folder / f"{address.replace('/', '_') or 'node'}.turn", keeper)
    # The ClientApp holds it until it ends, however it ends.
    os.set_inheritable(turn, True)
    os.execv(command[0], command)


def _option(command: list[str], name: str) -> str:
    """Return an option's value as Flower's launcher gives it; empty if it does not."""
    return command[command.index(name) + 1] if name in command[:-1] else ""


def _take_turn(path: Path, keeper: int | None) -> int:
    """Return a descriptor that says whose turn it is, once the ClientApp before has ended."""
    parent = os.getppid()
    turn = _open(path)
    if not _lock(turn):
        following = _open(path.with_suffix(".next"))
        if not _lock(following):
            _say("one ClientApp is at work and one waits: this one ends, and Flower starts it again.")
            raise SystemExit(BUSY)
        announced = time.monotonic() + LEAVING_SECONDS
        while not _lock(turn):
            if time.monotonic() >= announced:
                _say("waits until the ClientApp before it has ended.")
                announced = math.inf
            if os.getppid() != parent:
                raise SystemExit(BUSY)
            if keeper is not None and os.waitpid(keeper, os.WNOHANG)[0]:
                _say("its task was given to another while it waited: it ends.")
                raise SystemExit(BUSY)
            if _has_ended(turn):
                # What it has started and left behind holds the lock, and must not hold it for ever.
                path.unlink(missing_ok=True)
                os.close(turn)
                turn = _open(path)
                continue
            time.sleep(LOOK_SECONDS)
        os.close(following)
    os.ftruncate(turn, 0)
    os.pwrite(turn, str(os.getpid()).encode(), 0)
    return turn


def _has_ended(turn: int) -> bool:
    """Return whether the ClientApp whose turn it is has ended."""
    try:
        app = int(os.pread(turn, 20, 0))
        os.kill(app, 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):  # another user's, or not on record yet
        return False
    # Flower's launcher waits for nobody: one that has ended stays on the list.
    return _state(app) in ("Z", "X")


def _keep(address: str, token: str, authority: str, app: int) -> None:
    """Send signs of life for a task until its ClientApp has ended, or the task is not its own any more."""
    beat = 0.0
    while os.getppid() == app:
        if time.monotonic() >= beat and not _is_stopped(app):
            beat = time.monotonic() + BEAT_SECONDS
            if not _sign_of_life(address, token, authority):
                return
        time.sleep(LOOK_SECONDS)


def _sign_of_life(address: str, token: str, authority: str) -> bool:
    """Return whether the task is still this ClientApp's, as far as is known."""
    import http.client

    host, _, port = address.rpartition(":")
    host, timeout = host.strip("[]"), BEAT_SECONDS
    connection: http.client.HTTPConnection
    try:
        if authority:
            import ssl

            context = ssl.create_default_context(cafile=authority)
            connection = http.client.HTTPSConnection(host, int(port), timeout=timeout, context=context)
        else:
            connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
        kind = "application/protobuf"
        headers = {"content-type": kind, "accept": kind, "flwr-task-token": token}
        connection.request("POST", PATH, b"", headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return True  # nobody has said that it is not
    if answer.status == http.client.OK:
        return content == SUCCESS
    return answer.status != http.client.UNAUTHORIZED


def _is_stopped(pid: int) -> bool:
    """Return whether a process is stopped by a signal: one that is shows no life."""
    return _state(pid) in ("T", "t")


def _state(pid: int) -> str:
    """Return the letter that Linux gives a process's state; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _say(words: str) -> None:
    print(f"wash_fl: ClientApp (process {os.getpid()}): {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
