"""Tests of where streams are served: by the environment, and never in the clear beyond the machine."""

import pytest

from wash_fl.errors import ConfigError
from wash_fl.stream import place
from wash_fl.stream.place import Place, split


@pytest.fixture
def files(tmp_path):
    paths = {}
    for name in (place.CERTIFICATE, place.KEY, place.AUTHORITY):
        (tmp_path / name).write_bytes(name.encode())
        paths[name] = str(tmp_path / name)
    return paths


def test_with_nothing_set_a_free_port_of_the_loopback_interface():
    assert Place.from_environment({}) == Place("127.0.0.1:0")


def test_the_environment_says_it_all(files):
    found = Place.from_environment(
        {place.ADDRESS: "here.example:9000", place.LISTEN: "0.0.0.0:9000", **files}
    )
    assert (found.listen, found.address) == ("0.0.0.0:9000", "here.example:9000")
    assert (found.certificate, found.key, found.authority) == tuple(name.encode() for name in files)


def test_without_another_word_it_listens_where_it_is_found(files):
    assert Place.from_environment({place.ADDRESS: "10.0.0.1:9000", **files}).listen == "10.0.0.1:9000"


@pytest.mark.parametrize("listen", ["0.0.0.0:9000", "192.168.0.2:1", "[::]:9000", "server.example:9000"])
def test_beyond_the_machine_only_with_tls(listen, refused, files):
    with refused(ConfigError, place.LISTEN, listen, "without TLS"):
        Place.from_environment({place.LISTEN: listen})
    assert Place.from_environment({place.LISTEN: listen, **files}).listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:80", "[::1]:5", "127.9.9.9:65535"])
def test_on_the_machine_without_tls(listen):
    assert Place(listen).listen == listen


@pytest.mark.parametrize("missing", [place.CERTIFICATE, place.KEY, place.AUTHORITY])
def test_certificate_key_and_authority_belong_together(missing, refused, files):
    del files[missing]
    with refused(ConfigError, place.CERTIFICATE, place.KEY, place.AUTHORITY, "together"):
        Place.from_environment(files)


def test_a_file_that_is_not_there_is_said(tmp_path, refused):
    with refused(ConfigError, place.KEY, "no-key", "cannot be read"):
        Place.from_environment({place.KEY: str(tmp_path / "no-key")})


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:port", "host:70000", "host:-1"])
def test_what_is_no_address_is_refused(address, refused):
    with refused(ConfigError, "ADDRESS", repr(address), "host:port"):
        split(address, "ADDRESS")
    assert split("[::1]:80", "ADDRESS") == ("::1", 80)
