"""Certificates that TLS accepts under the names they are for, and under no others."""

import datetime
import ssl
import stat
from pathlib import Path

import pytest

from wash_fl.deploy import certificates
from wash_fl.deploy.certificates import make_authority, make_server_certificate, read_certificate
from wash_fl.deploy.new_files import CredentialsError


def shake_hands(server: Path, authority: Path, host: str) -> None:
    """A TLS handshake in memory, as Python's client checks a server; raises what the client finds wrong."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server / certificates.CERTIFICATE, server / certificates.KEY)
    asking = ssl.create_default_context(cafile=str(authority / certificates.AUTHORITY))
    # What Python 3.13 and newer always do.
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(down, up, server_hostname=host)
    other = accepting.wrap_bio(up, down, server_side=True)
    for side in (client, other, client, other, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() in ("TLSv1.2", "TLSv1.3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_authority(tmp_path)
    make_server_certificate(tmp_path, ["Fleet.example.org", "192.168.1.10", "fd00::10"])
    return tmp_path


@pytest.mark.parametrize(
    "host", ["fleet.example.org", "192.168.1.10", "fd00::10", "localhost", "127.0.0.1", "::1"]
)
def test_a_server_is_known_under_the_names_given_and_on_its_own_machine(folder, host):
    shake_hands(folder, folder, host)


@pytest.mark.parametrize("host", ["other.example.org", "192.168.1.11"])
def test_a_server_is_not_known_under_another_name(folder, host):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname|IP address"):
        shake_hands(folder, folder, host)


def test_a_server_of_another_authority_is_not_known(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    make_authority(other)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake_hands(folder, other, "localhost")


def test_private_files_are_their_owners_alone_and_nothing_else_is_left(folder):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes.keys() == {"ca.crt", "ca.key", "server.pem", "server.key"}
    assert modes["ca.key"] == modes["server.key"] == 0o600
    assert modes["ca.crt"] & 0o444 == modes["server.pem"] & 0o444 != 0


def test_a_server_certificate_is_renewed_by_the_same_authority(folder):
    authority = (folder / certificates.AUTHORITY).read_bytes()
    before = (folder / certificates.CERTIFICATE).read_bytes()
    (folder / certificates.CERTIFICATE).unlink()
    (folder / certificates.KEY).unlink()
    make_authority(folder)
    make_server_certificate(folder, ["fleet.example.org"])
    assert (folder / certificates.AUTHORITY).read_bytes() == authority
    assert (folder / certificates.CERTIFICATE).read_bytes() != before
    shake_hands(folder, folder, "fleet.example.org")


def test_what_a_certificate_says_can_be_read(folder):
    certificate = read_certificate(folder / certificates.CERTIFICATE)
    assert certificate.hosts == (
        "fleet.example.org",
        "192.168.1.10",
        "fd00::10",
        "localhost",
        "127.0.0.1",
        "::1",
    )
    assert certificates.SERVER_DAYS - 1 < certificate.days_left <= certificates.SERVER_DAYS
    assert certificate.until.tzinfo is datetime.UTC
    assert read_certificate(folder / certificates.AUTHORITY).hosts == ()


def test_a_server_certificate_does_not_outlive_its_authority(tmp_path):
    authority = make_authority(tmp_path, days=30)
    assert make_server_certificate(tmp_path, []).until == authority.until


@pytest.mark.parametrize("name", [certificates.CERTIFICATE, certificates.KEY])
def test_no_file_is_overwritten(folder, refused, name):
    other = certificates.KEY if name == certificates.CERTIFICATE else certificates.CERTIFICATE
    (folder / other).unlink()
    before = (folder / name).read_bytes()
    with refused(CredentialsError, str(folder / name), "never overwritten", "delete"):
        make_server_certificate(folder, ["fleet.example.org"])
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("half", [certificates.AUTHORITY, certificates.AUTHORITY_KEY])
def test_half_an_authority_is_not_made_whole_with_another_half(folder, refused, half):
    (folder / half).unlink()
    with refused(CredentialsError, "never overwritten"):
        make_authority(folder)


@pytest.mark.parametrize(
    "host",
    [
        "https://fleet.example.org",
        "fleet.example.org:8443",
        "",
        "a b",
        "-a.org",
        "192.168.1.256",
        "ü.org",
        "a..b",
    ],
)
def test_what_is_no_host_is_refused_before_anything_is_made(tmp_path, refused, host):
    make_authority(tmp_path)
    with refused(CredentialsError, repr(host), "192.168.1.10", "without a port"):
        make_server_certificate(tmp_path, [host])
    assert not (tmp_path / certificates.KEY).exists()


def test_certificates_are_made_only_with_the_authoritys_own_key(folder, tmp_path_factory, refused):
    (folder / certificates.CERTIFICATE).unlink()
    (folder / certificates.KEY).unlink()
    key = folder / certificates.AUTHORITY_KEY
    content = key.read_bytes()
    key.unlink()
    with refused(CredentialsError, "no ca.key"):
        make_server_certificate(folder, [])
    key.write_bytes(b"nonsense")
    with refused(CredentialsError, str(key), "not a private key"):
        make_server_certificate(folder, [])
    other = tmp_path_factory.mktemp("other")
    make_authority(other)
    key.write_bytes((other / certificates.AUTHORITY_KEY).read_bytes())
    with refused(CredentialsError, "is not the key of"):
        make_server_certificate(folder, [])
    key.write_bytes(content)
    make_server_certificate(folder, [])


def test_an_expired_authority_signs_nothing(tmp_path, refused, monkeypatch):
    make_authority(tmp_path, days=1)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(days=2)

    monkeypatch.setattr(certificates, "datetime", Later)
    with refused(CredentialsError, "expired on", "delete"):
        make_authority(tmp_path)


def test_damaged_and_missing_certificates_are_named(tmp_path, refused):
    with refused(CredentialsError, "nothing.pem", "No such file"):
        read_certificate(tmp_path / "nothing.pem")
    (tmp_path / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with refused(CredentialsError, "bad.pem", "not a certificate"):
        read_certificate(tmp_path / "bad.pem")


def test_a_validity_that_is_out_of_bounds_is_refused(tmp_path, refused):
    with refused(CredentialsError, "days = 0"):
        make_authority(tmp_path, days=0)
    assert not list(tmp_path.iterdir())
