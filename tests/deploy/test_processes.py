"""Processes that are started are found again by their mark, and stopped; others are left alone."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from wash_fl.deploy import processes
from wash_fl.errors import RunError

PYTHON = Path(sys.executable).name
SLEEP = "import time; time.sleep(600)"
# A grandchild that leaves its parent's session, as daemons do.
DETACH = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""
READY = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def mark() -> Iterator[str]:
    value = uuid.uuid4().hex
    yield value
    processes.stop_marked(value)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


Begin = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def begin(mark: str, log: Path, tmp_path: Path) -> Begin:
    """``begin(code)``: start Python under the mark, and wait until it says that it is ready."""

    def start(code: str, role: str = "", wait: bool = True) -> "subprocess.Popen[bytes]":
        environment = processes.flower_environment(tmp_path, mark) | {processes.ROLE: role}
        process = processes.start([PYTHON, "-c", code], environment, log)
        while wait and "ready" not in (log.read_text() if log.exists() else ""):
            assert process.poll() is None
            time.sleep(0.01)
        return process

    return start


def test_all_that_came_of_a_start_is_found_and_stopped(begin, mark):
    begin(DETACH)
    carriers = processes.marked(mark)
    assert len(carriers) == 2
    assert processes.stop_marked(mark) == 2
    assert processes.marked(mark) == set()
    assert not any(processes.is_alive(process) for process in carriers)
    assert processes.stop_marked(mark) == 0


def test_others_are_left_alone(begin, mark):
    begin(DETACH)
    other = subprocess.Popen(
        [sys.executable, "-c", SLEEP], env=os.environ | {processes.MARK: uuid.uuid4().hex}
    )
    try:
        processes.stop_marked(mark)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_one_that_does_not_listen_is_killed(begin, mark, monkeypatch):
    process = begin(STUBBORN)
    monkeypatch.setattr(processes, "STOP_SECONDS", 4.0)
    assert processes.stop_marked(mark) == 1
    assert not psutil.pid_exists(process.pid)


def test_parts_are_told_apart_by_their_role(begin, mark):
    first, second = begin(DETACH, "a"), begin(DETACH, "b")
    assert {each.pid for each in processes.marked(mark, {"a"})} >= {first.pid}
    assert processes.stop_marked(mark, {"a"}) == 2
    assert second.poll() is None and first.poll() is not None
    assert len(processes.marked(mark, {"a", "b"})) == 2


def test_one_that_has_ended_and_was_not_waited_for_is_not_alive(begin, mark):
    process = begin(STUBBORN)
    os.kill(process.pid, signal.SIGKILL)
    watched = psutil.Process(process.pid)
    while watched.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not processes.is_alive(watched)
    assert processes.stop_marked(mark) == 0
    process.wait()
    assert not processes.is_alive(watched)


def test_a_process_outlives_the_terminal_and_its_words_are_appended(begin, log):
    log.write_text("before\n")
    process = begin("print('ready')")
    process.wait()
    begin("import os; print('session', os.getsid(0) == os.getpid())", wait=False).wait()
    assert log.read_text() == "before\nready\nsession True\n"


def test_flowers_processes_neither_install_nor_call_home_and_find_each_other(tmp_path):
    environment = processes.flower_environment(tmp_path, "mark")
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert (environment["FLWR_HOME"], environment[processes.MARK]) == (str(tmp_path), "mark")
    assert environment["PATH"].startswith(str(Path(sys.executable).parent) + os.pathsep)
    assert str(Path.cwd()) in environment["PYTHONPATH"].split(os.pathsep)


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_server_that_answers_is_healthy(begin, log):
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        processes.wait_until_healthy(
            begin(READY), f"http://127.0.0.1:{server.server_port}/", log, name="the server"
        )
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_ends_is_an_error_with_its_last_words(begin, log, refused):
    process = begin("print('Error: no such file')", wait=False)
    process.wait()
    with refused(RunError, "the server did not start: Error: no such file", str(log)):
        processes.wait_until_healthy(process, "http://127.0.0.1:9/", log, name="the server")


def test_a_server_that_does_not_answer_is_an_error(begin, log, refused):
    url = f"http://127.0.0.1:{processes.free_port()}/"
    with refused(RunError, "the server did not answer within 0.3 s"):
        processes.wait_until_healthy(begin(READY), url, log, name="the server", timeout=0.3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one\nRunError: it broke.\nmore\n", "RunError: it broke"),
        (
            "╭─ Error ───╮\n│ The SuperLink is    │\n│ not there. Look.    │\n╰────╯\nbye\n",
            "The SuperLink is not there. Look",
        ),
        (
            "\x1b[91mERROR\x1b[0m: Exit Code: 305\nFailed to connect.\n[code: 2004] No.\n\n"
            "For more information, visit: <https://flower.ai/error>\nshutting down\n",
            "Failed to connect. [code: 2004] No",
        ),
        (
            "Traceback:\nsqlalchemy.exc.DatabaseError: (sqlite3) file is not a database\n"
            "(Background on this error at: x)\nExit Code: 201\n\nAn exception\n",
            "sqlalchemy.exc.DatabaseError: (sqlite3) file is not a database",
        ),
        ("an error it was\nbye", "an error it was"),
        ("one\ntwo\n\n----\n", "two"),
        ("", "it said nothing"),
        ("ok\n\xff\xfe error\n", "ÿþ error"),
    ],
)
def test_the_last_words_are_the_most_telling_ones(log, text, words):
    log.write_text(text, encoding="utf-8")
    assert processes.last_words(log) == words


def test_the_last_words_may_be_those_of_the_latest_process_only(log):
    log.write_text("Error: old\nnew\n")
    assert processes.last_words(log, len("Error: old\n")) == "new"
    assert processes.last_words(log.with_name("nothing")) == "it said nothing"


def test_a_port_is_free_until_somebody_listens():
    port = processes.free_port()
    assert processes.port_is_free(port)
    server = HTTPServer(("127.0.0.1", port), Healthy)
    try:
        assert not processes.port_is_free(port)
    finally:
        server.server_close()
