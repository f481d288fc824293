"""The proxy of the guide, as a real nginx: devices get through to two interfaces, and to nothing else."""

import http.client
import http.server
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from wash_fl.deploy import certificates, processes

ROOT = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
METHOD = "/wash.v1.Exchange/Exchange"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

MAIN = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


@dataclass
class Proxy:
    """The ports at which devices arrive, and what they are to trust."""

    superlink: int
    streams: int
    authority: Path


class SuperLink(http.server.BaseHTTPRequestHandler):
    """Says which path came through."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def echo(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for message in messages:
        yield message + b" " + str(len(message)).encode()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("nginx")
    certificates.make_authority(folder)
    certificates.make_server_certificate(folder, [])
    names = ("9443", "9444", "8443", "8444")
    ports = {name: processes.free_port() for name in names}
    site = (ROOT / "server" / "nginx.conf").read_text().replace("/etc/wash-fl", str(folder))
    for name, port in ports.items():
        site = re.sub(rf"\b{name}\b", str(port), site)
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    key, chain = (folder / certificates.KEY).read_bytes(), (folder / certificates.CERTIFICATE).read_bytes()
    web = http.server.ThreadingHTTPServer(("127.0.0.1", ports["8443"]), SuperLink)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / certificates.CERTIFICATE, folder / certificates.KEY)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    streams = grpc.server(ThreadPoolExecutor(4))
    handlers = {"Exchange": grpc.stream_stream_rpc_method_handler(echo)}
    streams.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("wash.v1.Exchange", handlers),
        grpc.method_handlers_generic_handler("wash.v1.Other", handlers),
    ))  # fmt: skip
    streams.add_secure_port(f"127.0.0.1:{ports['8444']}", grpc.ssl_server_credentials([(key, chain)]))
    streams.start()
    process = subprocess.Popen([str(NGINX), "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    try:
        deadline = time.monotonic() + 60
        while processes.port_is_free(ports["9443"]) or processes.port_is_free(ports["9444"]):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield Proxy(ports["9443"], ports["9444"], folder / certificates.AUTHORITY)
    finally:
        process.terminate()
        process.wait()
        streams.stop(None).wait()
        web.shutdown()
        web.server_close()


def call(proxy: Proxy, method: str, messages: list[bytes]) -> list[bytes]:
    credentials = grpc.ssl_channel_credentials(proxy.authority.read_bytes())
    with grpc.secure_channel(f"localhost:{proxy.streams}", credentials) as channel:
        return list(channel.stream_stream(method)(iter(messages), timeout=60))


def test_a_stream_goes_through_message_by_message_in_both_directions(proxy):
    large = b"x" * 3_000_000
    assert call(proxy, METHOD, [b"one", large]) == [b"one 3", large + b" 3000000"]
    # An answer comes while the call is open: a member waits for it before it sends more.
    credentials = grpc.ssl_channel_credentials(proxy.authority.read_bytes())
    with grpc.secure_channel(f"localhost:{proxy.streams}", credentials) as channel:
        answered = threading.Event()

        def messages() -> Iterator[bytes]:
            yield b"first"
            assert answered.wait(60)
            yield b"second"

        answers = channel.stream_stream(METHOD)(messages(), timeout=60)
        assert next(answers) == b"first 5"
        answered.set()
        assert list(answers) == [b"second 6"]


def test_no_other_service_of_the_stream_port_is_reached(proxy):
    with pytest.raises(grpc.RpcError) as caught:
        call(proxy, "/wash.v1.Other/Exchange", [b"one"])
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/fleet/pull", 200), ("/v1/control/start-run", 403), ("/v1/runtime/acquire-task", 403), ("/", 403)],
)
def test_of_the_superlink_devices_reach_their_own_interface_alone(proxy, path, status):
    connection = http.client.HTTPSConnection(
        "localhost",
        proxy.superlink,
        context=ssl.create_default_context(cafile=str(proxy.authority)),
        timeout=60,
    )
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == status
    assert (content == path.encode()) is (status == 200)
