"""Each way in which a SuperLink cannot be reached has its own answer: with real sockets and TLS."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wash_fl.deploy import certificates
from wash_fl.doctor import superlink
from wash_fl.doctor.superlink import Address, Reachability, reach
from wash_fl.errors import ConfigError

HOST = "127.0.0.1"


@contextmanager
def serving(
    credentials: Path | None, *, status: int = 200, shift: float = 0.0, host: str = HOST
) -> Iterator[Address]:
    """A server that answers with a status, and whose clock is ahead by ``shift`` seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + shift, usegmt=True)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            pass  # a client that does not trust it hangs up

    server = Server((host, 0), Handler)
    if credentials is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials / certificates.CERTIFICATE, credentials / certificates.KEY)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Address(host, server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority and a certificate for this machine."""
    folder = tmp_path_factory.mktemp("fleet")
    certificates.make_authority(folder)
    certificates.make_server_certificate(folder, [])
    return folder


def made_at(folder: Path, monkeypatch: pytest.MonkeyPatch, when: timedelta, *, days: int = 1) -> Path:
    """An authority of today, and a server's certificate that was made at another time."""
    certificates.make_authority(folder)

    class Then(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return datetime.now(tz) + when

    with monkeypatch.context() as patch:
        patch.setattr(certificates, "datetime", Then)
        certificates.make_server_certificate(folder, [], days=days)
    return folder


def problem(reachability: Reachability, name: str) -> tuple[str, str]:
    last = reachability.findings[-1]
    assert (last.name, last.level) == (name, "problem"), reachability
    return last.detail, last.advice


def authority(folder: Path) -> Path:
    return folder / certificates.AUTHORITY


def test_a_superlink_that_is_well_is_connected_trusted_and_answers(fleet):
    with serving(fleet) as address:
        reachability = reach(address, authority(fleet))
    assert [(each.name, each.level) for each in reachability.findings] == [
        ("connection", "ok"), ("certificate", "ok"), ("SuperLink", "ok")
    ]  # fmt: skip
    assert reachability.ahead is not None and abs(reachability.ahead) < 2


@pytest.mark.parametrize("shift", [-600, 3600])
def test_by_how_much_the_clock_differs_is_read_from_the_answer(fleet, shift):
    with serving(fleet, shift=shift) as address:
        ahead = reach(address, authority(fleet)).ahead
    assert ahead == pytest.approx(-shift, abs=2)


def test_a_port_that_nobody_listens_on():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        detail, advice = problem(reach(Address(HOST, probe.getsockname()[1]), None), "connection")
    assert "refuses" in detail and "SUPERLINK_HOST" in advice


@pytest.mark.parametrize(
    ("error", "part", "what_to_do"),
    [
        (socket.gaierror(-2, "Name or service not known"), "there is no host", "DNS"),
        (TimeoutError("timed out"), "did not answer", "firewall"),
        (OSError(113, "No route to host"), "No route to host", "ip route"),
    ],
)
def test_a_host_that_is_not_found_or_not_there(monkeypatch, error, part, what_to_do):
    def connect(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(superlink.socket, "create_connection", connect)
    detail, advice = problem(reach(Address("fleet.example.org", 8443), None), "connection")
    assert part in detail and what_to_do in advice


def test_a_certificate_of_another_authority(fleet, tmp_path):
    certificates.make_authority(tmp_path)
    with serving(fleet) as address:
        detail, advice = problem(reach(address, authority(tmp_path)), "certificate")
    assert "was not signed by" in detail and "copy the ca.crt" in advice


def test_without_the_fleets_authority_it_is_asked_for(fleet):
    with serving(fleet) as address:
        detail, advice = problem(reach(address, None), "certificate")
    assert "does not know" in detail and "--root-certificates" in advice


def test_a_certificate_for_another_name(fleet):
    with serving(fleet, host="127.0.0.2") as address:
        detail, advice = problem(reach(address, authority(fleet)), "certificate")
    assert "not for '127.0.0.2'" in detail and "step 2" in advice


def test_a_certificate_that_has_expired_is_to_be_renewed(tmp_path, monkeypatch):
    folder = made_at(tmp_path, monkeypatch, timedelta(days=-10))
    with serving(folder) as address:
        detail, advice = problem(reach(address, authority(folder)), "certificate")
    assert "has expired" in detail and "renew" in advice
    assert f"{datetime.now(UTC) - timedelta(days=9):%Y-%m-%d}" in detail


def test_a_certificate_that_seems_expired_because_of_this_clock_is_not_to_be_renewed(tmp_path, monkeypatch):
    folder = made_at(tmp_path, monkeypatch, timedelta(days=-10))
    with serving(folder, shift=-10 * 86_400) as address:
        reachability = reach(address, authority(folder))
    detail, advice = problem(reachability, "certificate")
    assert "the server has another time" in detail
    assert "timedatectl set-ntp true" in advice and "renew" not in advice
    assert reachability.ahead == pytest.approx(10 * 86_400, abs=2)


def test_a_certificate_that_is_not_valid_yet(tmp_path, monkeypatch):
    folder = made_at(tmp_path, monkeypatch, timedelta(days=30))
    with serving(folder, shift=30 * 86_400) as address:
        detail, advice = problem(reach(address, authority(folder)), "certificate")
    assert "is not valid yet" in detail and "timedatectl" in advice


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path, monkeypatch):
    folder = made_at(tmp_path, monkeypatch, timedelta(0), days=10)
    with serving(folder) as address:
        certificate = reach(address, authority(folder)).findings[1]
    assert certificate.level == "warning" and "9 more days" in certificate.detail


def test_a_server_without_tls(fleet):
    with serving(None) as address:
        detail, advice = problem(reach(address, authority(fleet)), "certificate")
    assert "without TLS" in detail and "step 3" in advice


def test_a_server_that_says_nothing(fleet, monkeypatch):
    monkeypatch.setattr(superlink, "SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        detail, _ = problem(reach(Address(*silent.getsockname()), authority(fleet)), "certificate")
    assert "does not answer as a SuperLink" in detail


@pytest.mark.parametrize(
    ("status", "level", "part"),
    [(403, "ok", "proxy"), (502, "problem", "behind it does not"), (404, "warning", "hardly a SuperLink")],
)
def test_what_answers_is_told_by_its_status(fleet, status, level, part):
    with serving(fleet, status=status) as address:
        last = reach(address, authority(fleet)).findings[-1]
    assert (last.name, last.level) == ("SuperLink", level)
    assert part in last.detail


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_an_authority_that_is_missing_or_is_no_certificate(fleet, tmp_path, content):
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)
    with serving(fleet) as address:
        detail, advice = problem(reach(address, path), "certificate")
    assert str(path) in detail and "copy ca.crt" in advice
    assert ("No such file" in detail) is (content is None)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fleet.example.org:8443", "fleet.example.org", 8443),
        ("192.168.1.10:1", "192.168.1.10", 1),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_an_address_is_a_host_and_a_port(text, host, port):
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "host", "host:", ":8443", "host:0", "host:65536", "host:-1", "host:x", "::1:8443", "[]:1",
        "https://host:8443", "host:8443/path", "user@host:1", "a b:1", "host:٣", "[host]:1",
    ],
)  # fmt: skip
def test_anything_else_is_refused(refused, text):
    with refused(ConfigError, "superlink", "HOST:PORT"):
        Address.parse(text)
